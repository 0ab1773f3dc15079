//go:build linux

// The sandbox agent: first process of a container, between the host of a run and its steps. PROTOCOL.md is what it does.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// Of the agent; it changes with what the agent does.
const version = "2"

// Beyond the job's own wall time, which the host keeps: first the processes end, then the agent.
const (
	processesLate = 5 * time.Second
	agentLate     = 60 * time.Second
)

const exitBroken = 70

type phase int

const (
	wantsJob phase = iota
	wantsFiles
	wantsStep
	running
	collecting
	over
)

type agent struct {
	out                     *sink
	stdout, stderr, archive *window
	cpu                     *cpuMeter
	egress                  *egress
	// Closed when the job's time and the host's are over.
	late chan struct{}

	mu    sync.Mutex
	phase phase
	job   *job
	next  int

	files    *io.PipeWriter
	prepared chan preparing
}

type preparing struct {
	done unpacked
	err  error
}

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "writ-agent: has to be the first process of a container")
		os.Exit(exitBroken)
	}
	// What is said on standard error when something is wrong with the agent itself holds nothing of the run.
	debug.SetTraceback("none")
	runtime.GOMAXPROCS(2)
	debug.SetMemoryLimit(24 << 20)
	startThreads()
	if guard() != nil {
		os.Exit(exitBroken)
	}
	in, out, err := ownStreams()
	if err != nil {
		os.Exit(exitBroken)
	}
	a := &agent{
		out:    &sink{to: out, lost: func() { end(0) }},
		stdout: newWindow(), stderr: newWindow(), archive: newWindow(),
		late: make(chan struct{}),
		next: 1,
	}
	a.say(kindReady, map[string]any{
		"protocol": protocol, "version": version, "arch": runtime.GOARCH, "kernel": kernelRelease(), "uid": os.Getuid(),
		"no_new_privs": seen.noNewPrivs, "seccomp": seen.seccomp, "dumpable": dumpable(),
	})
	from := bufio.NewReaderSize(in, maxData+headBytes)
	for {
		one, err := readFrame(from)
		switch {
		case err == errBroken:
			a.fail("bad_frame", nil)
		case err != nil:
			// The host is gone.
			end(0)
		}
		if code := a.take(one); code != "" {
			a.fail(code, nil)
		}
	}
}

// Takes standard input and output for the agent alone; in their places stands the null device, which a step does not
// inherit either.
func ownStreams() (*os.File, *os.File, error) {
	null, err := syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var own [2]*os.File
	for fd := range own {
		moved, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 3)
		if errno != 0 {
			return nil, nil, errno
		}
		if err := syscall.Dup3(null, fd, syscall.O_CLOEXEC); err != nil {
			return nil, nil, err
		}
		_ = syscall.SetNonblock(int(moved), true)
		own[fd] = os.NewFile(moved, "host")
	}
	return own[0], own[1], nil
}

// As the first process: the kernel kills every other with it.
func end(code int) {
	_ = syscall.Kill(-1, syscall.SIGKILL)
	os.Exit(code)
}

func (a *agent) fail(code string, step *int) {
	_ = syscall.Kill(-1, syscall.SIGKILL)
	time.AfterFunc(time.Second, func() { end(exitBroken) })
	a.say(kindFailed, map[string]any{"code": code, "step": step})
	end(exitBroken)
}

func (a *agent) say(kind byte, content any) {
	a.sayOf(kind, channelControl, content)
}

func (a *agent) sayOf(kind byte, channel uint32, content any) {
	payload, err := json.Marshal(content)
	if err != nil {
		end(exitBroken)
	}
	a.out.send(kind, channel, payload)
}

// Does what a frame asks; the code of the failure where it may not be asked now.
func (a *agent) take(f frame) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f.kind == kindStop {
		end(0)
	}
	switch a.phase {
	case wantsJob:
		if f.kind == kindJob {
			return a.takeJob(f.payload)
		}
	case wantsFiles:
		switch f.kind {
		case kindFiles:
			// An archive that is already refused takes no more; why is said when it ends.
			_, _ = a.files.Write(f.payload)
			return ""
		case kindFilesEnd:
			return a.finishFiles()
		}
	case wantsStep:
		switch f.kind {
		case kindStep:
			return a.takeStep(f.channel)
		case kindCollect:
			a.phase = collecting
			go a.collect()
			return ""
		}
	case running, collecting, over:
	}
	return a.takeFlow(f)
}

// Frames of flow and of connections, which may come at any time after the job: what they speak of may just have ended.
func (a *agent) takeFlow(f frame) string {
	if a.phase == wantsJob {
		return "bad_frame"
	}
	right := false
	switch {
	case f.kind == kindWindow && f.channel == channelStdout:
		right = a.stdout.raise(f.payload)
	case f.kind == kindWindow && f.channel == channelStderr:
		right = a.stderr.raise(f.payload)
	case f.kind == kindWindow && f.channel == channelArchive:
		right = a.archive.raise(f.payload)
	case f.channel >= firstConnected && a.egress != nil:
		right = a.egress.take(f) == nil
	}
	if !right {
		return "bad_frame"
	}
	return ""
}

func (a *agent) takeJob(payload []byte) string {
	parsed, err := parseJob(payload)
	if err != nil {
		return "bad_job"
	}
	if err := makeFolders(); err != nil {
		return preparingCode(err)
	}
	if len(payload) > 1<<20 {
		debug.FreeOSMemory()
	}
	a.job = parsed
	a.cpu = newCpuMeter()
	if parsed.egress {
		a.egress = newEgress(a.out)
	}
	wall := time.Duration(parsed.limits.wallSeconds) * time.Second
	time.AfterFunc(wall+processesLate, func() { close(a.late) })
	time.AfterFunc(wall+agentLate, func() { end(exitBroken) })
	reader, writer := io.Pipe()
	a.files = writer
	a.prepared = make(chan preparing, 1)
	go func() {
		done, err := unpack(reader)
		_ = reader.CloseWithError(io.ErrClosedPipe)
		a.prepared <- preparing{done, err}
	}()
	a.phase = wantsFiles
	return ""
}

func (a *agent) finishFiles() string {
	_ = a.files.Close()
	result := <-a.prepared
	if result.err != nil {
		return preparingCode(result.err)
	}
	a.phase = wantsStep
	a.say(kindPrepared, result.done)
	return ""
}

func (a *agent) takeStep(number uint32) string {
	if int64(number) != int64(a.next) || a.next > len(a.job.steps) {
		return "bad_frame"
	}
	step := a.next
	a.next++
	a.phase = running
	go func() {
		if a.egress != nil {
			if err := a.egress.listen(); err != nil {
				a.fail("internal", &step)
			}
		}
		result, err := a.runStep(step)
		if err != nil {
			a.fail("exec_failed", &step)
		}
		if a.egress != nil {
			a.egress.close()
		}
		a.mu.Lock()
		a.phase = wantsStep
		a.mu.Unlock()
		a.sayOf(kindExited, uint32(step), result)
	}()
	return ""
}

// Sends the outputs and ends the agent.
func (a *agent) collect() {
	a.killAll()
	to := &archiveWriter{agent: a, buffer: make([]byte, headBytes, headBytes+maxData)}
	done, err := pack(outputFolder, to, a.job.limits)
	if err == nil {
		to.flush()
	}
	if err != nil {
		a.fail("internal", nil)
	}
	a.say(kindArchiveEnd, done)
	a.out.send(kindDone, channelControl, nil)
	end(0)
}

// Sends what is written in frames as full as the window lets them be.
type archiveWriter struct {
	agent  *agent
	buffer []byte
}

func (w *archiveWriter) Write(bytes []byte) (int, error) {
	rest := bytes
	for len(rest) > 0 {
		room := min(len(rest), cap(w.buffer)-len(w.buffer))
		w.buffer = append(w.buffer, rest[:room]...)
		rest = rest[room:]
		if len(w.buffer) == cap(w.buffer) {
			w.flush()
		}
	}
	return len(bytes), nil
}

func (w *archiveWriter) flush() {
	payload := w.buffer[headBytes:]
	for len(payload) > 0 {
		count := w.agent.archive.take(len(payload))
		w.agent.out.send(kindArchive, channelArchive, payload[:count])
		payload = payload[count:]
	}
	w.buffer = w.buffer[:headBytes]
}
