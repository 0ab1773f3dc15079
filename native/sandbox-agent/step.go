//go:build linux

package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

type exited struct {
	Exit    *int    `json:"exit"`
	Signal  *int    `json:"signal"`
	Ms      int64   `json:"ms"`
	CpuMs   int64   `json:"cpu_ms"`
	Stopped *string `json:"stopped"`
}

// Why a step was ended by the agent.
const (
	notStopped int32 = iota
	stoppedByCpu
	stoppedByTime
)

// The three pipes of a step. `theirs` are closed here once the step has them.
type streams struct {
	stdin          *os.File
	stdout, stderr *os.File
	theirs         [3]int
}

func openStreams() (*streams, error) {
	var pairs [3][2]int
	for index := range pairs {
		if err := syscall.Pipe2(pairs[index][:], syscall.O_CLOEXEC); err != nil {
			for _, pair := range pairs[:index] {
				_ = syscall.Close(pair[0])
				_ = syscall.Close(pair[1])
			}
			return nil, err
		}
	}
	ours := func(fd int, name string) *os.File {
		_ = syscall.SetNonblock(fd, true)
		return os.NewFile(uintptr(fd), name)
	}
	return &streams{
		stdin:  ours(pairs[0][1], "stdin"),
		stdout: ours(pairs[1][0], "stdout"),
		stderr: ours(pairs[2][0], "stderr"),
		theirs: [3]int{pairs[0][0], pairs[1][1], pairs[2][1]},
	}, nil
}

func (s *streams) closeTheirs() {
	for _, fd := range s.theirs {
		_ = syscall.Close(fd)
	}
}

// Runs one step to its end: when it returns, no process is left, both streams are drained and sent. The error is of a
// step that could not be forked at all.
func (a *agent) runStep(number int) (exited, error) {
	argv := a.job.steps[number-1].argv
	if err := makeFolders(); err != nil {
		return exited{}, err
	}
	path, code := find(argv[0], a.job.path)
	if code != 0 {
		return a.notRun(code, argv[0]), nil
	}
	pipes, err := openStreams()
	if err != nil {
		return exited{}, err
	}
	begun := time.Now()
	pid, err := forkFirstToDie(path, argv, &syscall.ProcAttr{
		Dir:   projectFolder,
		Env:   a.job.environment,
		Files: []uintptr{uintptr(pipes.theirs[0]), uintptr(pipes.theirs[1]), uintptr(pipes.theirs[2])},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	pipes.closeTheirs()
	var copied sync.WaitGroup
	if err == nil {
		copied.Go(func() { a.copyOut(pipes.stdout, kindStdout, channelStdout, a.stdout) })
		copied.Go(func() { a.copyOut(pipes.stderr, kindStderr, channelStderr, a.stderr) })
		if number == 1 && a.job.stdin != nil {
			go feed(pipes.stdin, *a.job.stdin)
		} else {
			pipes.stdin.Close()
		}
	}
	if err != nil {
		pipes.stdin.Close()
		pipes.stdout.Close()
		pipes.stderr.Close()
		if code := execCode(err); code != 0 {
			return a.notRun(code, argv[0]), nil
		}
		return exited{}, err
	}
	status, ms, stopped, err := a.watch(pid, begun)
	pipes.stdin.Close()
	copied.Wait()
	if err != nil {
		return exited{}, err
	}
	result := exited{Ms: ms, CpuMs: a.cpu.stepMs(), Stopped: stopped}
	if status.Exited() {
		value := status.ExitStatus()
		result.Exit = &value
	} else {
		value := int(status.Signal())
		result.Signal = &value
	}
	return result, nil
}

// Waits for the first process of a step, then for the death of every other. How the step ended is what the kernel said of
// that very process, or an error.
func (a *agent) watch(pid int, begun time.Time) (syscall.WaitStatus, int64, *string, error) {
	var reason atomic.Int32
	over := make(chan struct{})
	var guarding sync.WaitGroup
	guarding.Go(func() { a.guard(over, &reason) })
	var failure error
	var status syscall.WaitStatus
	for {
		var one syscall.WaitStatus
		var used syscall.Rusage
		reaped, err := syscall.Wait4(-1, &one, 0, &used)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			failure = err
			break
		}
		// Whoever asks to be traced makes its parent the tracer, which is told of its stops too.
		if one.Stopped() || one.Continued() {
			continue
		}
		a.cpu.reaped(&used)
		if reaped == pid {
			status = one
			break
		}
	}
	ms := time.Since(begun).Milliseconds()
	close(over)
	// What the guard kills late would be of the next step.
	guarding.Wait()
	a.killAll()
	switch reason.Load() {
	case stoppedByCpu:
		return status, ms, text("cpu"), failure
	case stoppedByTime:
		return status, ms, text("time"), failure
	}
	return status, ms, nil, failure
}

func text(value string) *string { return &value }

// Ends a step that has used what the job allows.
func (a *agent) guard(over <-chan struct{}, reason *atomic.Int32) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var why int32
		select {
		case <-over:
			return
		case <-tick.C:
			if !a.cpu.beyond(a.job.limits.cpuSeconds) {
				continue
			}
			why = stoppedByCpu
		case <-a.late:
			why = stoppedByTime
		}
		reason.CompareAndSwap(notStopped, why)
		_ = syscall.Kill(-1, syscall.SIGKILL)
		return
	}
}

// Kills every process but this one and reaps until there is none: whatever is orphaned becomes a child of the first
// process, so that no children means nobody. A process that is just being forked is killed with its parent.
func (a *agent) killAll() {
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		_ = syscall.Kill(-1, syscall.SIGKILL)
		for {
			var status syscall.WaitStatus
			var used syscall.Rusage
			reaped, err := syscall.Wait4(-1, &status, syscall.WNOHANG, &used)
			if reaped > 0 {
				if status.Exited() || status.Signaled() {
					a.cpu.reaped(&used)
				}
				continue
			}
			if err == syscall.EINTR {
				continue
			}
			if err != nil {
				return
			}
			break
		}
		time.Sleep(pause)
	}
}

// Sends what comes out of a pipe until its last writer is gone.
func (a *agent) copyOut(from *os.File, kind byte, channel uint32, allowed *window) {
	defer from.Close()
	buffer := make([]byte, headBytes+maxData)
	for {
		room := allowed.take(maxData)
		count, err := from.Read(buffer[headBytes : headBytes+room])
		if count > 0 {
			a.out.sendIn(buffer[:headBytes+count], kind, channel)
		}
		if count < room {
			allowed.giveBack(room - max(count, 0))
		}
		if err != nil {
			return
		}
	}
}

func feed(to *os.File, input string) {
	_, _ = io.WriteString(to, input)
	to.Close()
}

// A program that is not there, or cannot be run, ended with the code that a shell gives it and one line of why.
func (a *agent) notRun(code int, name string) exited {
	why := "not found"
	if code == 126 {
		why = "cannot be executed"
	}
	line := []byte("writ: " + name + ": " + why + "\n")
	for len(line) > 0 {
		room := a.stderr.take(min(len(line), maxData))
		if room == 0 {
			break
		}
		a.out.send(kindStderr, channelStderr, line[:room])
		line = line[room:]
	}
	return exited{Exit: &code}
}

// Looks a program up as a shell does, in the folders of the job's PATH that are absolute; code 127 or 126 where it is
// not there or is no program.
func find(name, path string) (string, int) {
	if strings.Contains(name, "/") {
		return name, 0
	}
	if path == "" {
		path = defaultPath
	}
	code := 127
	for folder := range strings.SplitSeq(path, ":") {
		if !strings.HasPrefix(folder, "/") {
			continue
		}
		file := strings.TrimSuffix(folder, "/") + "/" + name
		var stat syscall.Stat_t
		if syscall.Stat(file, &stat) != nil || stat.Mode&syscall.S_IFMT != syscall.S_IFREG {
			continue
		}
		const mayExecute = 1
		if syscall.Access(file, mayExecute) == nil {
			return file, 0
		}
		code = 126
	}
	return "", code
}

func execCode(err error) int {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENAMETOOLONG):
		return 127
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return 0
	}
	return 126
}
