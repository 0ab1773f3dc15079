// Drives the Go SDK's client: one JSON command a line on stdin, one JSON answer a line on stdout.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

type command struct {
	// The first line: where to connect.
	URL     string            `json:"url"`
	Token   string            `json:"token"`
	Command string            `json:"command"`
	Args    []string          `json:"args"`
	Env     map[string]string `json:"env"`
	// Every other line.
	Do        string          `json:"do"`
	Tool      string          `json:"tool"`
	Arguments json.RawMessage `json:"arguments"`
	URI       string          `json:"uri"`
}

// bearer puts the token into each request; a client without one sends none.
type bearer struct{ token string }

func (b bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	if b.token != "" {
		request = request.Clone(request.Context())
		request.Header.Set("Authorization", "Bearer "+b.token)
	}
	return http.DefaultTransport.RoundTrip(request)
}

func transport(start command) mcp.Transport {
	if start.URL != "" {
		return &mcp.StreamableClientTransport{
			Endpoint:   start.URL,
			HTTPClient: &http.Client{Transport: bearer{start.Token}},
			MaxRetries: -1,
		}
	}
	child := exec.Command(start.Command, start.Args...)
	child.Env = []string{}
	for name, value := range start.Env {
		child.Env = append(child.Env, name+"="+value)
	}
	child.Stderr = os.Stderr
	return &mcp.CommandTransport{Command: child}
}

func answer(session *mcp.ClientSession, asked command) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	switch asked.Do {
	case "version":
		result := session.InitializeResult()
		return map[string]any{"version": result.ProtocolVersion, "instructions": result.Instructions}, nil
	case "list":
		return session.ListTools(ctx, nil)
	case "call":
		return session.CallTool(ctx, &mcp.CallToolParams{Name: asked.Tool, Arguments: asked.Arguments})
	case "read":
		return session.ReadResource(ctx, &mcp.ReadResourceParams{URI: asked.URI})
	}
	return nil, fmt.Errorf("no such command: %q", asked.Do)
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	out := json.NewEncoder(os.Stdout)
	reply := func(ok any, err error) {
		if err != nil {
			_ = out.Encode(map[string]any{"error": err.Error()})
		} else {
			_ = out.Encode(map[string]any{"ok": ok})
		}
	}
	var session *mcp.ClientSession
	for lines.Scan() {
		var asked command
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			reply(nil, err)
			continue
		}
		if session != nil {
			reply(answer(session, asked))
			continue
		}
		client := mcp.NewClient(&mcp.Implementation{Name: "go-sdk", Version: "1"}, nil)
		opened, err := client.Connect(context.Background(), transport(asked), nil)
		reply(map[string]any{}, err)
		if err != nil {
			return
		}
		session = opened
	}
	if session != nil {
		_ = session.Close()
	}
}
