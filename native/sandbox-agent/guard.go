//go:build linux && (amd64 || arm64)

package main

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"
)

// Of <linux/seccomp.h>, <linux/audit.h> and <linux/bpf_common.h>.
const (
	setModeFilter  = 1
	everyThread    = 1
	allow          = 0x7fff0000
	refuse         = 0x00050000
	loadWord       = 0x20
	jumpEqual      = 0x15
	jumpGreater    = 0x25
	jumpAtLeast    = 0x35
	give           = 0x06
	offsetNumber   = 0
	offsetArch     = 4
	offsetArgument = 16
	secondTable    = 0x40000000
	sysPidfdOpen   = 434
)

type instruction struct {
	code    uint16
	yes, no uint8
	value   uint32
}

// What differs between the architectures: the audit number, and the calls that name a process or a thread first.
type calls struct {
	arch    uint32
	seccomp uintptr
	tgkill  uint32
	named   []uint32
}

func systemCalls() calls {
	if runtime.GOARCH == "arm64" {
		// kill, tkill, rt_sigqueueinfo, rt_tgsigqueueinfo, prlimit64
		return calls{0xc00000b7, 277, 131, []uint32{129, 130, 138, 240, 261, sysPidfdOpen}}
	}
	return calls{0xc000003e, 317, 234, []uint32{62, 200, 129, 297, 302, sysPidfdOpen}}
}

// Lets no process of the container, the agent included, signal the agent or change its limits: a kernel in user space
// lets a process of the same user kill and stop the first one, and every kernel lets it lower the first one's limits.
// The agent's threads have the lowest numbers, because they were there first. The words of an argument are compared as
// the kernel takes them: 32 bits, whatever stands above. A call of another architecture's table is refused whole.
func guardFilter(of calls, highest uint32) []instruction {
	const enosys, eperm = 38, 1
	filter := []instruction{
		{loadWord, 0, 0, offsetArch},
		{jumpEqual, 1, 0, of.arch},
		{give, 0, 0, refuse | enosys},
		{loadWord, 0, 0, offsetNumber},
		{jumpAtLeast, 0, 1, secondTable},
		{give, 0, 0, refuse | enosys},
	}
	// Where the parts below lie, counted from the comparison that jumps there.
	left := uint8(len(of.named))
	filter = append(filter, instruction{jumpEqual, left + 1, 0, of.tgkill})
	for _, number := range of.named {
		filter = append(filter, instruction{jumpEqual, left + 2, 0, number})
		left--
	}
	return append(filter,
		instruction{give, 0, 0, allow},
		// The runtime interrupts its own threads with SIGURG, which does nothing else.
		instruction{loadWord, 0, 0, offsetArgument + 16},
		instruction{jumpEqual, 4, 0, uint32(syscall.SIGURG)},
		instruction{loadWord, 0, 0, offsetArgument},
		instruction{jumpEqual, 2, 0, 0},
		instruction{jumpGreater, 1, 0, highest},
		instruction{give, 0, 0, refuse | eperm},
		instruction{give, 0, 0, allow},
	)
}

// Called once, when all threads that are to be are there.
func guard() error {
	of := systemCalls()
	filter := guardFilter(of, highestThread())
	program := struct {
		length uint16
		filter *instruction
	}{uint16(len(filter)), &filter[0]}
	_, _, err := syscall.RawSyscall(of.seccomp, setModeFilter, everyThread, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if err != 0 {
		return err
	}
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
