package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	maxSteps     = 256
	maxArguments = 65_536
	maxNames     = 4096
	maxSeconds   = 86_400
	maxOutput    = 1 << 40
	maxFiles     = 1_000_000
)

type step struct{ argv []string }

type limits struct {
	cpuSeconds, wallSeconds      int64
	artifactBytes, artifactFiles int64
}

type job struct {
	environment []string
	path        string
	steps       []step
	stdin       *string
	egress      bool
	limits      limits
}

var errJob = errors.New("bad job")

// Reads the payload of a job. Every member is there once, none is there beside them, and no text holds a NUL.
func parseJob(payload []byte) (*job, error) {
	if !utf8.Valid(payload) {
		return nil, errJob
	}
	from := json.NewDecoder(bytes.NewReader(payload))
	from.UseNumber()
	result := &job{}
	err := object(from, []string{"protocol", "env", "steps", "stdin", "egress", "limits"}, func(name string) error {
		switch name {
		case "protocol":
			text, err := str(from)
			if err == nil && text != protocol {
				err = errJob
			}
			return err
		case "env":
			return result.readEnvironment(from)
		case "steps":
			return result.readSteps(from)
		case "stdin":
			return result.readStdin(from)
		case "egress":
			token, err := from.Token()
			value, is := token.(bool)
			if err != nil || !is {
				return errJob
			}
			result.egress = value
			return nil
		}
		return result.limits.read(from)
	})
	if err != nil {
		return nil, errJob
	}
	if _, err := from.Token(); err != io.EOF {
		return nil, errJob
	}
	return result, nil
}

func (j *job) readEnvironment(from *json.Decoder) error {
	return object(from, nil, func(name string) error {
		value, err := argument(from)
		if err != nil || name == "" || len(j.environment) == maxNames || strings.ContainsAny(name, "=\x00") {
			return errJob
		}
		if name == "PATH" {
			j.path = value
		}
		j.environment = append(j.environment, name+"="+value)
		return nil
	})
}

func (j *job) readSteps(from *json.Decoder) error {
	return array(from, func() error {
		var one step
		if len(j.steps) == maxSteps {
			return errJob
		}
		err := object(from, []string{"argv"}, func(string) error {
			return array(from, func() error {
				text, err := argument(from)
				if err != nil || len(one.argv) == maxArguments {
					return errJob
				}
				one.argv = append(one.argv, text)
				return nil
			})
		})
		if err != nil || len(one.argv) == 0 || one.argv[0] == "" {
			return errJob
		}
		j.steps = append(j.steps, one)
		return nil
	})
}

func (j *job) readStdin(from *json.Decoder) error {
	token, err := from.Token()
	if err != nil {
		return errJob
	}
	switch value := token.(type) {
	case nil:
		return nil
	case string:
		j.stdin = &value
		return nil
	}
	return errJob
}

func (l *limits) read(from *json.Decoder) error {
	return object(from, []string{"cpu_s", "wall_s", "artifact_bytes", "artifact_files"}, func(name string) error {
		switch name {
		case "cpu_s":
			return whole(from, &l.cpuSeconds, 1, maxSeconds)
		case "wall_s":
			return whole(from, &l.wallSeconds, 1, maxSeconds)
		case "artifact_bytes":
			return whole(from, &l.artifactBytes, 0, maxOutput)
		}
		return whole(from, &l.artifactFiles, 0, maxFiles)
	})
}

// Reads an object whose members are exactly those named, each once, in any order; any names, each once, where none are.
func object(from *json.Decoder, names []string, member func(name string) error) error {
	if token, err := from.Token(); err != nil || token != json.Delim('{') {
		return errJob
	}
	had := map[string]bool{}
	for from.More() {
		token, err := from.Token()
		name, is := token.(string)
		if err != nil || !is || had[name] || (names != nil && !contains(names, name)) {
			return errJob
		}
		had[name] = true
		if err := member(name); err != nil {
			return err
		}
	}
	if _, err := from.Token(); err != nil || (names != nil && len(had) != len(names)) {
		return errJob
	}
	return nil
}

func contains(names []string, name string) bool {
	for _, one := range names {
		if one == name {
			return true
		}
	}
	return false
}

func array(from *json.Decoder, entry func() error) error {
	if token, err := from.Token(); err != nil || token != json.Delim('[') {
		return errJob
	}
	for from.More() {
		if err := entry(); err != nil {
			return err
		}
	}
	_, err := from.Token()
	return err
}

func str(from *json.Decoder) (string, error) {
	token, err := from.Token()
	text, is := token.(string)
	if err != nil || !is {
		return "", errJob
	}
	return text, nil
}

// A text that can be handed to a program.
func argument(from *json.Decoder) (string, error) {
	text, err := str(from)
	if err != nil || strings.IndexByte(text, 0) >= 0 {
		return "", errJob
	}
	return text, nil
}

func whole(from *json.Decoder, to *int64, least, most int64) error {
	token, err := from.Token()
	number, is := token.(json.Number)
	if err != nil || !is {
		return errJob
	}
	value, err := number.Int64()
	if err != nil || value < least || value > most {
		return errJob
	}
	*to = value
	return nil
}
