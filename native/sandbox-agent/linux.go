//go:build linux && (amd64 || arm64)

package main

import (
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"
)

// Numbers of <linux/prctl.h>, <linux/close_range.h> and the system call tables; amd64 and arm64 share them.
const (
	prGetDumpable   = 3
	prSetDumpable   = 4
	prGetSeccomp    = 21
	prSetNoNewPrivs = 38
	prGetNoNewPrivs = 39
	sysCloseRange   = 436
	closeRangeExec  = 4
	rlimitCore      = 4
	signalDefault   = 0
	signalIgnore    = 1
	highestSignal   = 64
	// Threads that wait for work: a workload that takes every pid must not make the runtime fail to start one.
	spareThreads = 10
)

// What was found before the agent changed it.
type found struct {
	noNewPrivs bool
	seccomp    int
}

var (
	seen found
	// Open from before the agent was not dumpable: from then on the file belongs to root.
	oomScore = -1
	oomOwn   []byte
)

// Runs before main and before any other process is in the namespace.
func init() {
	// Elsewhere main refuses to run, and tests of the parts are to be left alone.
	if syscall.Getpid() != 1 {
		return
	}
	oomScore, _ = syscall.Open("/proc/self/oom_score_adj", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	_, _ = prctl(prSetDumpable, 0)
	_ = syscall.Setrlimit(rlimitCore, &syscall.Rlimit{})
	closeOnExec()
	readOomScore()
	nnp, _ := prctl(prGetNoNewPrivs, 0)
	mode, err := prctl(prGetSeccomp, 0)
	if err != 0 {
		mode = 0
	}
	seen = found{noNewPrivs: nnp == 1, seccomp: int(mode)}
	// An attribute of each thread: a step forked from one without it would be without it.
	_, _, _ = syscall.AllThreadsSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0)
	ignoreSignals()
	syscall.Umask(0o022)
}

func prctl(option, value uintptr) (uintptr, syscall.Errno) {
	result, _, err := syscall.RawSyscall6(syscall.SYS_PRCTL, option, value, 0, 0, 0, 0)
	return result, err
}

func dumpable() bool {
	value, err := prctl(prGetDumpable, 0)
	return err != 0 || value != 0
}

// Whatever this process was started with, a step gets none of it.
func closeOnExec() {
	if _, _, err := syscall.RawSyscall(sysCloseRange, 0, uintptr(^uint32(0)), closeRangeExec); err == 0 {
		return
	}
	limit := syscall.Rlimit{Cur: 1024}
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	for fd := 0; fd < int(min(limit.Cur, 65_536)); fd++ {
		syscall.CloseOnExec(fd)
	}
}

// The runtime answers a signal of another process by ending this one; ignored, none of them does anything. A child gets
// the default for each, because the runtime still counts them as handled and resets them.
func ignoreSignals() {
	type action struct {
		handler  uintptr
		flags    uint64
		restorer uintptr
		mask     uint64
	}
	// Not handled by the runtime, these would stop the agent in a kernel that does not protect the first process.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	for number := uintptr(1); number <= highestSignal; number++ {
		one := syscall.Signal(number)
		// The runtime interrupts its own threads with SIGURG.
		if one == syscall.SIGKILL || one == syscall.SIGSTOP || one == syscall.SIGURG {
			continue
		}
		var old action
		_, _, err := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, number, 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0)
		if err != 0 || old.handler == signalDefault || old.handler == signalIgnore {
			continue
		}
		// Ignored, SIGCHLD would reap children behind the agent's back.
		want := action{handler: signalIgnore}
		if one == syscall.SIGCHLD {
			want.handler = signalDefault
		}
		_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, number, uintptr(unsafe.Pointer(&want)), 0, 8, 0, 0)
	}
}

func readOomScore() {
	if oomScore < 0 {
		return
	}
	text := make([]byte, 16)
	count, err := syscall.Pread(oomScore, text, 0)
	if err != nil || count <= 0 {
		oomScore = -1
		return
	}
	oomOwn = []byte(strings.TrimSpace(string(text[:count])))
}

// Forks behind the guard and with the score of the first process to be killed when memory is short, which the child
// inherits, and takes the agent's own back: no process of a step ever outlives the agent for want of memory.
func forkFirstToDie(path string, argv []string, attributes *syscall.ProcAttr) (int, error) {
	if err := guard(); err != nil {
		return 0, err
	}
	if oomScore >= 0 {
		_, _ = syscall.Pwrite(oomScore, []byte("1000"), 0)
		defer func() { _, _ = syscall.Pwrite(oomScore, oomOwn, 0) }()
	}
	return syscall.ForkExec(path, argv, attributes)
}

// Starts the threads the agent may need while there are pids for them; the runtime keeps them.
func startThreads() {
	var ready, done sync.WaitGroup
	release := make(chan struct{})
	for range spareThreads {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			ready.Done()
			<-release
			runtime.UnlockOSThread()
		}()
	}
	ready.Wait()
	close(release)
	done.Wait()
}

func kernelRelease() string {
	var name syscall.Utsname
	if syscall.Uname(&name) != nil {
		return ""
	}
	var text strings.Builder
	for _, letter := range name.Release {
		if letter == 0 {
			break
		}
		text.WriteByte(byte(letter))
	}
	return text.String()
}
