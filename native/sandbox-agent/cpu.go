//go:build linux

package main

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Ticks a second in /proc/PID/stat; 100 on every Linux of these architectures.
const ticks = 100

// Processor time of every process of the job: what ended was summed when it was reaped, what lives is read from /proc.
// A process that has its children reaped by the kernel hides their time from both, so the container's own account counts
// where it can be read, less what the agent used itself.
type cpuMeter struct {
	mu       sync.Mutex
	ended    time.Duration
	before   time.Duration
	account  func() (time.Duration, bool)
	accounts time.Duration
	own      time.Duration
}

func newCpuMeter() *cpuMeter {
	m := &cpuMeter{account: containerAccount()}
	if used, ok := m.account(); ok {
		m.accounts, m.own = used, ownTime()
	} else {
		m.account = func() (time.Duration, bool) { return 0, false }
	}
	return m
}

func (m *cpuMeter) reaped(used *syscall.Rusage) {
	m.mu.Lock()
	m.ended += duration(used)
	m.mu.Unlock()
}

// All there was since the job came.
func (m *cpuMeter) total() time.Duration {
	m.mu.Lock()
	sum := m.ended
	m.mu.Unlock()
	sum += living()
	if used, ok := m.account(); ok {
		sum = max(sum, used-m.accounts-(ownTime()-m.own))
	}
	return sum
}

func (m *cpuMeter) beyond(seconds int64) bool {
	return m.total() >= time.Duration(seconds)*time.Second
}

// Of the step that ended; called once for each.
func (m *cpuMeter) stepMs() int64 {
	total := m.total()
	step := max(total-m.before, 0)
	m.before = total
	return step.Milliseconds()
}

func duration(used *syscall.Rusage) time.Duration {
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func ownTime() time.Duration {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return duration(&used)
}

func living() time.Duration {
	folder, err := os.Open("/proc")
	if err != nil {
		return 0
	}
	defer folder.Close()
	names, _ := folder.Readdirnames(-1)
	var sum int64
	for _, name := range names {
		if name == "1" || name[0] < '1' || name[0] > '9' {
			continue
		}
		sum += statTicks("/proc/" + name + "/stat")
	}
	return time.Duration(sum) * time.Second / ticks
}

// utime, stime and the same of children it has waited for: fields 14 to 17. The name in brackets may hold anything.
func statTicks(path string) int64 {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	var buffer [1024]byte
	count, err := syscall.Read(fd, buffer[:])
	_ = syscall.Close(fd)
	if err != nil || count <= 0 {
		return 0
	}
	text := buffer[:count]
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 15 {
		return 0
	}
	var sum int64
	for _, field := range fields[11:15] {
		value, _ := strconv.ParseInt(string(field), 10, 64)
		sum += max(value, 0)
	}
	return sum
}

// The control group's own count, in version 2 or 1. The files that only a root group lacks or has tell a container's
// group from the whole machine's.
func containerAccount() func() (time.Duration, bool) {
	const root = "/sys/fs/cgroup"
	if exists(root + "/cgroup.events") {
		return func() (time.Duration, bool) {
			text, err := os.ReadFile(root + "/cpu.stat")
			if err != nil {
				return 0, false
			}
			for line := range strings.SplitSeq(string(text), "\n") {
				if value, is := strings.CutPrefix(line, "usage_usec "); is {
					micros, err := strconv.ParseInt(value, 10, 64)
					return time.Duration(micros) * time.Microsecond, err == nil
				}
			}
			return 0, false
		}
	}
	for _, folder := range []string{root + "/cpuacct", root + "/cpu,cpuacct"} {
		if !exists(folder+"/cpuacct.usage") || exists(folder+"/release_agent") {
			continue
		}
		return func() (time.Duration, bool) {
			text, err := os.ReadFile(folder + "/cpuacct.usage")
			if err != nil {
				return 0, false
			}
			nanos, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			return time.Duration(nanos), err == nil
		}
	}
	return func() (time.Duration, bool) { return 0, false }
}

func exists(path string) bool {
	var stat syscall.Stat_t
	return syscall.Stat(path, &stat) == nil
}
