//go:build linux && (amd64 || arm64)

package main

import (
	"runtime"
	"testing"
)

// What the kernel would answer: the six instructions that the filter is made of.
func decide(t *testing.T, filter []instruction, arch, number uint32, arguments [3]uint64) uint32 {
	var word uint32
	for at := 0; at < len(filter); at++ {
		one := filter[at]
		goOn := func(yes bool) {
			if yes {
				at += int(one.yes)
			} else {
				at += int(one.no)
			}
		}
		switch one.code {
		case loadWord:
			switch one.value {
			case offsetNumber:
				word = number
			case offsetArch:
				word = arch
			default:
				index := (one.value - offsetArgument(0)) / 8
				word = uint32(arguments[index])
			}
		case jump:
			at += int(one.value)
		case jumpEqual:
			goOn(word == one.value)
		case jumpGreater:
			goOn(word > one.value)
		case jumpAtLeast:
			goOn(word >= one.value)
		case give:
			return one.value
		}
	}
	t.Fatal("the filter ends without an answer")
	return 0
}

func TestTheGuardLetsNobodyNameTheAgent(t *testing.T) {
	const highest = 14
	of := systemCalls()
	filter := guardFilter(of, highest)
	answer := func(number uint32, arguments ...uint64) uint32 {
		var three [3]uint64
		copy(three[:], arguments)
		return decide(t, filter, of.arch, number, three)
	}
	for _, number := range of.named {
		for _, process := range []uint64{1, 2, highest, 1<<32 + 1, 1<<63 + highest} {
			if answer(number, process, 9) != refuse|1 {
				t.Errorf("call %d of %d was let through", number, process)
			}
		}
		for _, process := range []uint64{0, highest + 1, 1<<32 - 1, 1<<64 - 1} {
			if answer(number, process, 9) != allow {
				t.Errorf("call %d of %d was refused", number, process)
			}
		}
	}
	for _, signal := range []uint64{0, 9, 15, 19, 64} {
		if answer(of.tgkill, 1, 3, signal) != refuse|1 || answer(of.tgkill, 99, 99, signal) != allow {
			t.Errorf("tgkill with signal %d", signal)
		}
	}
	if answer(of.tgkill, 1, 3, 23) != allow {
		t.Error("the runtime may not interrupt its threads")
	}
	for _, process := range []uint64{0, 99, 1} {
		if answer(sysPidfdSignal, process, 9) != refuse|1 {
			t.Error("a signal to whoever a pidfd is of was let through")
		}
	}
	const owner, everything = 8, 1 << 32
	for _, process := range []uint64{1, highest, everything + 1, 1<<32 - 1, 1<<64 - 1, 1<<64 - highest, 7<<32 - highest} {
		if answer(of.fcntl, 3, owner, process) != refuse|1 || answer(of.fcntl, 3, everything+owner, process) != refuse|1 {
			t.Errorf("a descriptor was given to %d", process)
		}
	}
	for _, process := range []uint64{0, highest + 1, 4 << 20, 1<<32 - highest - 1, 1<<64 - 500} {
		if answer(of.fcntl, 3, owner, process) != allow {
			t.Errorf("a descriptor could not be given to %d", process)
		}
	}
	if answer(of.fcntl, 3, 15, 99) != refuse|1 || answer(of.fcntl, 3, everything+15, 99) != refuse|1 {
		t.Error("a descriptor was given to whoever stands behind a pointer")
	}
	for _, command := range []uint64{0, 1, 2, 3, 4, 9, 10, 14, 16, 1024} {
		if answer(of.fcntl, 3, command, 1) != allow {
			t.Errorf("fcntl %d was refused", command)
		}
	}
	for command, want := range map[uint64]uint32{0x8901: refuse | 1, 0x8902: refuse | 1, everything + 0x8901: refuse | 1, 0x8903: allow, 0x5421: allow} {
		if answer(of.ioctl, 3, command, 1) != want {
			t.Errorf("ioctl %x", command)
		}
	}
	for call, user := range map[uint32]uint64{of.setPriority: 2, of.setIoPriority: 3} {
		for _, process := range []uint64{0, 1, highest, 99, 65_532} {
			if answer(call, user, process) != refuse|1 || answer(call, everything+user, process) != refuse|1 {
				t.Errorf("call %d of all of a user was let through", call)
			}
			want := uint32(allow)
			if process == 1 || process == highest {
				want = refuse | 1
			}
			if answer(call, user-1, process) != want || answer(call, user-2, everything+process) != want {
				t.Errorf("call %d of %d", call, process)
			}
		}
	}
	if answer(0) != allow || answer(of.named[0]|secondTable, 99, 9) != refuse|38 {
		t.Error("another table of calls")
	}
	if decide(t, filter, 0x40000003, of.named[0], [3]uint64{99}) != refuse|38 {
		t.Errorf("a call of another architecture than %s was let through", runtime.GOARCH)
	}
}
