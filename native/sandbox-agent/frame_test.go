//go:build linux && (amd64 || arm64)

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"testing"
)

func bytesOf(kind byte, channel uint32, payload []byte) []byte {
	head := make([]byte, headBytes, headBytes+len(payload))
	binary.BigEndian.PutUint32(head, uint32(5+len(payload)))
	head[4] = kind
	binary.BigEndian.PutUint32(head[5:], channel)
	return append(head, payload...)
}

func read(input []byte) (frame, error) {
	return readFrame(bufio.NewReader(bytes.NewReader(input)))
}

func TestEveryFrameOfTheHostIsRead(t *testing.T) {
	for _, want := range []frame{
		{kindJob, 0, []byte("{}")},
		{kindFiles, 0, bytes.Repeat([]byte{1}, maxData)},
		{kindFilesEnd, 0, []byte{}},
		{kindStep, 1, []byte{}},
		{kindStep, 1 << 31, []byte{}},
		{kindWindow, channelStdout, []byte{0, 0, 0, 1}},
		{kindWindow, channelArchive, []byte{0, 0, 0, 1}},
		{kindWindow, firstConnected, []byte{0, 0, 0, 1}},
		{kindHostData, 16, []byte{0}},
		{kindHostEnd, 1<<32 - 1, []byte{}},
		{kindHostReset, 17, []byte{}},
		{kindCollect, 0, []byte{}},
		{kindStop, 0, []byte{}},
	} {
		got, err := read(bytesOf(want.kind, want.channel, want.payload))
		if err != nil || got.kind != want.kind || got.channel != want.channel || !bytes.Equal(got.payload, want.payload) {
			t.Errorf("%#x on %d: %v", want.kind, want.channel, err)
		}
	}
}

func TestWhatIsNoFrameIsRefusedBeforeItIsRead(t *testing.T) {
	head := func(length uint32, kind byte, channel uint32) []byte {
		bytes := bytesOf(kind, channel, nil)
		binary.BigEndian.PutUint32(bytes, length)
		return bytes
	}
	for name, input := range map[string][]byte{
		"no length":                     head(0, kindStop, 0),
		"shorter than its head":         head(4, kindStop, 0),
		"the longest length":            head(1<<32-1, kindFiles, 0),
		"a job too large":               head(5+maxJob+1, kindJob, 0),
		"files too large":               head(5+maxData+1, kindFiles, 0),
		"no files":                      head(5, kindFiles, 0),
		"a stop with content":           head(6, kindStop, 0),
		"a window of three bytes":       head(8, kindWindow, 1),
		"kind 0":                        head(5, 0, 0),
		"a kind of the agent":           head(5, kindDone, 0),
		"step 0":                        head(5, kindStep, 0),
		"a job on a channel":            head(7, kindJob, 1),
		"a window of standard input":    head(9, kindWindow, 0),
		"a window of a free number":     head(9, kindWindow, 3),
		"a window below the first":      head(9, kindWindow, 15),
		"data on a stream":              head(6, kindHostData, 1),
		"the end of the control stream": head(5, kindHostEnd, 0),
	} {
		if _, err := read(input); err != errBroken {
			t.Errorf("%s: %v", name, err)
		}
	}
	whole := bytesOf(kindJob, 0, []byte("{}"))
	for cut := 0; cut < len(whole); cut++ {
		if _, err := read(whole[:cut]); err != io.EOF && err != io.ErrUnexpectedEOF {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

func TestAWindowNeverOverflows(t *testing.T) {
	w := newWindow()
	if !w.raise([]byte{0, 0, 0, 1}) || w.raise([]byte{0, 0, 0, 0}) || w.raise([]byte{0x80, 0, 0, 0}) || w.raise([]byte{0x7f, 0xff, 0xff, 0xff}) {
		t.Error("a window was raised beyond its bounds, or not within them")
	}
	if w.take(1<<30) != windowBytes+1 {
		t.Error("a window gives what it has")
	}
	w.close()
	if w.take(1) != 0 {
		t.Error("a closed window gives nothing")
	}
}

func TestNothingFollowsTheLastFrame(t *testing.T) {
	for _, last := range []byte{kindDone, kindFailed} {
		var to bytes.Buffer
		out := &sink{to: &to, lost: func() { t.Fatal("lost") }}
		out.send(kindReady, 0, []byte("{}"))
		out.send(last, 0, nil)
		size := to.Len()
		out.send(kindStdout, 1, []byte("late"))
		if to.Len() != size {
			t.Errorf("a frame followed %#x", last)
		}
	}
}

// What is read is what stands there: a frame that is taken, written again, is the same bytes; anything else is one error.
func FuzzReadFrame(f *testing.F) {
	f.Add(bytesOf(kindJob, 0, []byte(`{"protocol":"writ-frame/1"}`)))
	f.Add(bytesOf(kindWindow, 16, []byte{0, 1, 0, 0}))
	f.Add(append(bytesOf(kindFiles, 0, []byte("tar")), bytesOf(kindFilesEnd, 0, nil)...))
	f.Add(bytesOf(kindStep, 1, nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, input []byte) {
		from := bufio.NewReader(bytes.NewReader(input))
		at := 0
		for {
			one, err := readFrame(from)
			if err != nil {
				if err != errBroken && err != io.EOF && err != io.ErrUnexpectedEOF {
					t.Fatal(err)
				}
				return
			}
			again := bytesOf(one.kind, one.channel, one.payload)
			if !bytes.Equal(again, input[at:at+len(again)]) {
				t.Fatal("read something else than was sent")
			}
			at += len(again)
		}
	})
}
