//go:build linux && (amd64 || arm64)

package main

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"
)

// Of <linux/seccomp.h>, <linux/audit.h>, <linux/bpf_common.h>, <linux/sockios.h>, <linux/fcntl.h> and <linux/ioprio.h>.
const (
	setModeFilter = 1
	everyThread   = 1
	allow         = 0x7fff0000
	refuse        = 0x00050000
	loadWord      = 0x20
	jump          = 0x05
	jumpEqual     = 0x15
	jumpGreater   = 0x25
	jumpAtLeast   = 0x35
	give          = 0x06
	offsetNumber  = 0
	offsetArch    = 4
	secondTable   = 0x40000000
	eperm         = 1
	enosys        = 38
	setOwner      = 8
	setOwnerEx    = 15
	ownerOfSocket = 0x8901
	groupOfSocket = 0x8902
	niceOfUser    = 2
	ioOfUser      = 3
	// The same number in both tables.
	sysPidfdSignal = 424
	sysPidfdOpen   = 434
)

// Where the low half of an argument stands: what a call takes as 32 bits is compared so, whatever stands above.
func offsetArgument(index uint32) uint32 { return 16 + 8*index }

type instruction struct {
	code    uint16
	yes, no uint8
	value   uint32
}

// What differs between the architectures: the audit number and those of the calls.
type calls struct {
	arch    uint32
	seccomp uintptr
	tgkill  uint32
	// Each names a process or a thread first.
	named                                    []uint32
	fcntl, ioctl, setPriority, setIoPriority uint32
}

func systemCalls() calls {
	// kill, tkill, rt_sigqueueinfo, rt_tgsigqueueinfo, prlimit64, sched_setparam, sched_setscheduler, sched_setaffinity,
	// sched_setattr, pidfd_open
	if runtime.GOARCH == "arm64" {
		named := []uint32{129, 130, 138, 240, 261, 118, 119, 122, 274, sysPidfdOpen}
		return calls{0xc00000b7, 277, 131, named, 25, 29, 140, 30}
	}
	named := []uint32{62, 200, 129, 297, 302, 142, 144, 203, 314, sysPidfdOpen}
	return calls{0xc000003e, 317, 234, named, 72, 16, 141, 251}
}

// An instruction before its jumps are counted: where to go on, by name; at the next one where none is given.
type line struct {
	name    string
	code    uint16
	value   uint32
	yes, no string
}

// Lets no process of the container, the agent included, signal the agent, have the kernel signal it, or change its limits
// and its turn at the processor: a kernel in user space lets a process of the same user kill and stop the first one, and
// every kernel lets it lower the first one's limits. The agent's threads have the lowest numbers, because they were there
// first, or no process of an earlier step is left; a negative number is a group of processes. What a pidfd is of and what stands behind a pointer no filter can
// see: such calls are refused whole, and so is every call of another architecture's table.
func guardFilter(of calls, highest uint32) []instruction {
	lines := []line{
		{"", loadWord, offsetArch, "", ""},
		{"", jumpEqual, of.arch, "", "unknown"},
		{"", loadWord, offsetNumber, "", ""},
		{"", jumpAtLeast, secondTable, "unknown", ""},
		{"", jumpEqual, of.fcntl, "fcntl", ""},
		{"", jumpEqual, of.ioctl, "ioctl", ""},
		{"", jumpEqual, of.tgkill, "tgkill", ""},
		{"", jumpEqual, sysPidfdSignal, "refused", ""},
		{"", jumpEqual, of.setPriority, "nice", ""},
		{"", jumpEqual, of.setIoPriority, "io", ""},
	}
	for _, number := range of.named {
		lines = append(lines, line{"", jumpEqual, number, "first", ""})
	}
	return assembled(append(lines,
		line{"", jump, 0, "allowed", ""},
		// The runtime interrupts its own threads with SIGURG, which does nothing else.
		line{"tgkill", loadWord, offsetArgument(2), "", ""},
		line{"", jumpEqual, uint32(syscall.SIGURG), "allowed", "first"},
		// Whoever a descriptor belongs to is signalled when something comes of it.
		line{"fcntl", loadWord, offsetArgument(1), "", ""},
		line{"", jumpEqual, setOwnerEx, "refused", ""},
		line{"", jumpEqual, setOwner, "", "allowed"},
		line{"", loadWord, offsetArgument(2), "", ""},
		line{"", jumpAtLeast, -highest, "refused", "process"},
		line{"ioctl", loadWord, offsetArgument(1), "", ""},
		line{"", jumpEqual, ownerOfSocket, "refused", ""},
		line{"", jumpEqual, groupOfSocket, "refused", "allowed"},
		// Of a process, of a group of them, or of all of a user, and the agent is one of those.
		line{"io", loadWord, offsetArgument(0), "", ""},
		line{"", jumpEqual, ioOfUser, "refused", "second"},
		line{"nice", loadWord, offsetArgument(0), "", ""},
		line{"", jumpEqual, niceOfUser, "refused", ""},
		line{"second", loadWord, offsetArgument(1), "", ""},
		line{"", jump, 0, "process", ""},
		line{"first", loadWord, offsetArgument(0), "", ""},
		line{"process", jumpEqual, 0, "allowed", ""},
		line{"", jumpGreater, highest, "allowed", "refused"},
		line{"allowed", give, allow, "", ""},
		line{"refused", give, refuse | eperm, "", ""},
		line{"unknown", give, refuse | enosys, "", ""},
	))
}

func assembled(lines []line) []instruction {
	places := map[string]int{}
	for at, one := range lines {
		places[one.name] = at
	}
	filter := make([]instruction, len(lines))
	for at, one := range lines {
		away := func(name string) int {
			if name == "" {
				return 0
			}
			return places[name] - at - 1
		}
		if one.code == jump {
			filter[at] = instruction{code: jump, value: uint32(away(one.yes))}
		} else {
			filter[at] = instruction{one.code, uint8(away(one.yes)), uint8(away(one.no)), one.value}
		}
	}
	return filter
}

// The highest number of a thread that a filter knows.
var guarded uint32

// Called when all threads that are to be are there, and right before each fork: on a busy machine the runtime may have
// started one more since, by whose number a step would reach the agent. A filter comes to those before and takes nothing
// from them.
func guard() error {
	highest := highestThread()
	if highest <= guarded {
		return nil
	}
	of := systemCalls()
	filter := guardFilter(of, highest)
	program := struct {
		length uint16
		filter *instruction
	}{uint16(len(filter)), &filter[0]}
	_, _, err := syscall.RawSyscall(of.seccomp, setModeFilter, everyThread, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if err != 0 {
		return err
	}
	guarded = highest
	return nil
}

func highestThread() uint32 {
	highest := 1
	entries, _ := os.ReadDir("/proc/self/task")
	for _, entry := range entries {
		number, _ := strconv.Atoi(entry.Name())
		highest = max(highest, number)
	}
	return uint32(highest)
}
