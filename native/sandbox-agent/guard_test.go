//go:build linux && (amd64 || arm64)

package main

import (
	"runtime"
	"testing"
)

// What the kernel would answer: the five instructions that the filter is made of.
func decide(t *testing.T, filter []instruction, arch, number uint32, arguments [3]uint64) uint32 {
	var word uint32
	for at := 0; at < len(filter); at++ {
		one := filter[at]
		jump := func(yes bool) {
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
				index := (one.value - offsetArgument) / 8
				word = uint32(arguments[index])
			}
		case jumpEqual:
			jump(word == one.value)
		case jumpGreater:
			jump(word > one.value)
		case jumpAtLeast:
			jump(word >= one.value)
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
	if answer(0) != allow || answer(of.named[0]|secondTable, 99, 9) != refuse|38 {
		t.Error("another table of calls")
	}
	if decide(t, filter, 0x40000003, of.named[0], [3]uint64{99}) != refuse|38 {
		t.Errorf("a call of another architecture than %s was let through", runtime.GOARCH)
	}
}
