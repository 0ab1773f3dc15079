//go:build linux

package main

import (
	"io"
	"net"
	"sync"
	"syscall"
)

const (
	egressAddress  = "127.0.0.1:3128"
	maxConnections = 64
	// Of each connection; there may be many.
	readBytes = maxData / 2
	// The agent tells the host of room once so much of it is free; until then the host has the rest of the window.
	windowStep = windowBytes / 4
)

// The listener of a step and its connections. A new one for each step: what was in the backlog of one is not the next's.
type egress struct {
	out      *sink
	mu       sync.Mutex
	open     map[uint32]*connection
	last     uint32
	closing  bool
	listener net.Listener
	slots    chan struct{}
	all      sync.WaitGroup
}

func newEgress(out *sink) *egress {
	return &egress{out: out, open: map[uint32]*connection{}, last: firstConnected - 1, slots: make(chan struct{}, maxConnections)}
}

func (e *egress) listen() error {
	listener, err := net.Listen("tcp4", egressAddress)
	if err != nil {
		return err
	}
	e.listener = listener
	e.all.Go(func() {
		for {
			e.slots <- struct{}{}
			made, err := listener.Accept()
			if err != nil {
				<-e.slots
				return
			}
			e.begin(made.(*net.TCPConn))
		}
	})
	return nil
}

func (e *egress) begin(tcp *net.TCPConn) {
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		_ = tcp.Close()
		<-e.slots
		return
	}
	e.last++
	c := &connection{number: e.last, tcp: tcp, out: e.out, window: newWindow()}
	c.arrived.L = &c.mu
	// Said before the connection can be closed, so that nothing of it is ever said before its opening.
	c.mu.Lock()
	e.open[c.number] = c
	e.mu.Unlock()
	e.out.send(kindOpen, c.number, nil)
	c.mu.Unlock()
	e.all.Go(func() {
		var both sync.WaitGroup
		both.Go(c.fromStep)
		both.Go(c.toStep)
		both.Wait()
		_ = tcp.Close()
		e.mu.Lock()
		delete(e.open, c.number)
		e.mu.Unlock()
		<-e.slots
	})
}

// Ends every connection and the listener; returns when nothing more will be sent of them.
func (e *egress) close() {
	if e.listener == nil {
		return
	}
	_ = e.listener.Close()
	e.mu.Lock()
	e.closing = true
	for _, c := range e.open {
		c.reset(true)
	}
	e.mu.Unlock()
	e.all.Wait()
	e.listener, e.closing = nil, false
}

// Takes a frame of the host. What comes for a connection that is over crossed its end on the way and is dropped; one
// that never was breaks the protocol.
func (e *egress) take(f frame) error {
	e.mu.Lock()
	c, open := e.open[f.channel]
	known := f.channel >= firstConnected && f.channel <= e.last
	e.mu.Unlock()
	if !known {
		return errBroken
	}
	if !open {
		return nil
	}
	switch f.kind {
	case kindWindow:
		if !c.window.raise(f.payload) {
			return errBroken
		}
		return nil
	case kindHostReset:
		c.reset(false)
		return nil
	case kindHostEnd:
		return c.queue(nil, true)
	}
	return c.queue(f.payload, false)
}

type connection struct {
	number uint32
	tcp    *net.TCPConn
	out    *sink
	window *window

	mu      sync.Mutex
	arrived sync.Cond
	waiting [][]byte
	// Bytes the host has sent and the agent has not told it are gone, and those of them that are.
	owed  int
	freed int
	// Somebody writes what was waiting; whoever comes meanwhile waits behind it.
	writing bool
	ended   bool
	over    bool
}

// Of the host, for the step. More than the window, or anything after its end, breaks the protocol.
func (c *connection) queue(payload []byte, end bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil
	}
	if c.ended || c.owed+len(payload) > windowBytes {
		return errBroken
	}
	c.owed += len(payload)
	if len(payload) > 0 && len(c.waiting) == 0 && !c.writing {
		written := c.writeNow(payload)
		payload = payload[written:]
		c.freed += written
		c.tellRoom()
	}
	c.ended = end
	if len(payload) > 0 {
		c.waiting = append(c.waiting, payload)
	}
	if end || len(payload) > 0 {
		c.arrived.Signal()
	}
	return nil
}

// As much as the kernel takes without waiting: mostly all, and then nobody has to be woken to write it.
func (c *connection) writeNow(payload []byte) int {
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return 0
	}
	written := 0
	_ = raw.Write(func(fd uintptr) bool {
		written, err = syscall.Write(int(fd), payload)
		return true
	})
	// An error is for the one who waits: it finds it again.
	return max(written, 0)
}

// Closes at once, in both directions, and tells the host unless it was the host that asked. Only the first call counts.
func (c *connection) reset(tell bool) {
	c.mu.Lock()
	first := !c.over
	c.over = true
	c.waiting = nil
	c.arrived.Signal()
	c.mu.Unlock()
	if !first {
		return
	}
	c.window.close()
	_ = c.tcp.SetLinger(0)
	_ = c.tcp.Close()
	if tell {
		c.out.send(kindReset, c.number, nil)
	}
}

func (c *connection) fromStep() {
	buffer := make([]byte, headBytes+readBytes)
	for {
		room := c.window.take(readBytes)
		if room == 0 {
			return
		}
		count, err := c.tcp.Read(buffer[headBytes : headBytes+room])
		if count > 0 {
			c.say(buffer[:headBytes+count], kindData)
		}
		if count < room {
			c.window.giveBack(room - count)
		}
		if err == io.EOF {
			c.say(buffer[:headBytes], kindEnd)
			return
		}
		if err != nil {
			c.reset(true)
			return
		}
	}
}

// Nothing is said of a connection after its reset.
func (c *connection) say(buffer []byte, kind byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.out.sendIn(buffer, kind, c.number)
	}
}

func (c *connection) toStep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for len(c.waiting) == 0 && !c.ended && !c.over {
			c.arrived.Wait()
		}
		if c.over {
			return
		}
		if len(c.waiting) == 0 {
			_ = c.tcp.CloseWrite()
			return
		}
		chunks := net.Buffers(c.waiting)
		c.waiting = nil
		c.writing = true
		c.mu.Unlock()
		written, err := chunks.WriteTo(c.tcp)
		if err != nil {
			c.reset(true)
		}
		c.mu.Lock()
		c.writing = false
		c.freed += int(written)
		c.tellRoom()
	}
}

// Tells the host what the step has taken, in portions; with the lock held.
func (c *connection) tellRoom() {
	if c.over || c.ended || c.freed < windowStep {
		return
	}
	freed := c.freed
	c.freed = 0
	c.owed -= freed
	c.out.send(kindAgentWindow, c.number, []byte{byte(freed >> 24), byte(freed >> 16), byte(freed >> 8), byte(freed)})
}
