package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"sync"
)

const protocol = "writ-frame/1"

// What the host sends.
const (
	kindJob        = 0x01
	kindFiles      = 0x02
	kindFilesEnd   = 0x03
	kindStep       = 0x04
	kindWindow     = 0x05
	kindHostData   = 0x06
	kindHostEnd    = 0x07
	kindHostReset  = 0x08
	kindCollect    = 0x09
	kindStop       = 0x0a
	firstConnected = 16
)

// What the agent sends.
const (
	kindReady       = 0x81
	kindPrepared    = 0x82
	kindStdout      = 0x83
	kindStderr      = 0x84
	kindExited      = 0x85
	kindAgentWindow = 0x86
	kindOpen        = 0x87
	kindData        = 0x88
	kindEnd         = 0x89
	kindReset       = 0x8a
	kindArchive     = 0x8b
	kindArchiveEnd  = 0x8c
	kindFailed      = 0x8d
	kindDone        = 0x8f
)

const (
	channelControl = 0
	channelStdout  = 1
	channelStderr  = 2
	channelArchive = 4
)

const (
	headBytes    = 9
	maxData      = 65_536
	maxJob       = 8_388_608
	windowBytes  = 262_144
	windowAtMost = 1<<31 - 1
)

// The one error of the reader: what came is no frame of this protocol, whatever the reason.
var errBroken = errors.New("broken frame")

type frame struct {
	kind    byte
	channel uint32
	payload []byte
}

// Bytes a payload has at least and at most, by kind; a kind that is not here does not exist.
func sizes(kind byte) (least, most int, known bool) {
	switch kind {
	case kindJob:
		return 2, maxJob, true
	case kindFiles, kindHostData:
		return 1, maxData, true
	case kindWindow:
		return 4, 4, true
	case kindFilesEnd, kindStep, kindHostEnd, kindHostReset, kindCollect, kindStop:
		return 0, 0, true
	}
	return 0, 0, false
}

func channelFits(kind byte, channel uint32) bool {
	switch kind {
	case kindStep:
		return channel >= 1
	case kindWindow:
		return channel == channelStdout || channel == channelStderr || channel == channelArchive || channel >= firstConnected
	case kindHostData, kindHostEnd, kindHostReset:
		return channel >= firstConnected
	}
	return channel == channelControl
}

// Reads one frame, checked for everything that can be told without knowing what came before. The payload is the
// caller's. Nothing is allocated for a length before its kind allows it.
func readFrame(from *bufio.Reader) (frame, error) {
	var head [headBytes]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return frame{}, err
	}
	length := binary.BigEndian.Uint32(head[:])
	kind, channel := head[4], binary.BigEndian.Uint32(head[5:])
	least, most, known := sizes(kind)
	if !known || length < uint32(5+least) || length > uint32(5+most) || !channelFits(kind, channel) {
		return frame{}, errBroken
	}
	payload := make([]byte, length-5)
	if _, err := io.ReadFull(from, payload); err != nil {
		return frame{}, err
	}
	return frame{kind, channel, payload}, nil
}

// Where frames go. One write each, whole, in the order of the calls.
type sink struct {
	mu sync.Mutex
	to io.Writer
	// What ends the agent when the host no longer reads.
	lost func()
	// Nothing follows the last frame, whoever else had one to send.
	ended bool
}

func (s *sink) send(kind byte, channel uint32, payload []byte) {
	buffer := make([]byte, headBytes, headBytes+len(payload))
	s.sendIn(append(buffer, payload...), kind, channel)
}

// Sends a buffer that has room for the head in front of its payload.
func (s *sink) sendIn(buffer []byte, kind byte, channel uint32) {
	binary.BigEndian.PutUint32(buffer, uint32(len(buffer)-4))
	buffer[4] = kind
	binary.BigEndian.PutUint32(buffer[5:], channel)
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended = kind == kindFailed || kind == kindDone
	_, err := s.to.Write(buffer)
	s.mu.Unlock()
	if err != nil {
		s.lost()
	}
}

// How many bytes may still be sent on a channel.
type window struct {
	mu     sync.Mutex
	more   sync.Cond
	left   int
	closed bool
}

func newWindow() *window {
	w := &window{left: windowBytes}
	w.more.L = &w.mu
	return w
}

// Takes up to `most` bytes of the window, waiting until there is one; 0 where the channel was closed.
func (w *window) take(most int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.left == 0 && !w.closed {
		w.more.Wait()
	}
	if w.closed {
		return 0
	}
	taken := min(most, w.left)
	w.left -= taken
	return taken
}

func (w *window) giveBack(bytes int) {
	w.mu.Lock()
	w.left += bytes
	w.mu.Unlock()
}

// False where the host raises it beyond every sense.
func (w *window) raise(payload []byte) bool {
	by := binary.BigEndian.Uint32(payload)
	w.mu.Lock()
	defer w.mu.Unlock()
	if by == 0 || by > windowAtMost || w.left+int(by) > windowAtMost {
		return false
	}
	w.left += int(by)
	w.more.Broadcast()
	return true
}

func (w *window) close() {
	w.mu.Lock()
	w.closed = true
	w.more.Broadcast()
	w.mu.Unlock()
}
