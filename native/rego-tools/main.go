// Command rego-tools is OPA's parser, compiler, tester and formatter behind one JSON request on standard input and one
// JSON reply on standard output. It is built for wasip1 and runs with no files and no network; everything it needs
// arrives in the request. What a pack may contain is judged by the caller: the reply carries the facts.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/compile"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/version"
)

type file struct {
	Path string `json:"path"`
	Text string `json:"text"`
}

type request struct {
	Verb string `json:"verb"` // version capabilities fmt check build test eval
	Pack string `json:"pack"`
	// Files of the pack; those ending in _test.rego are tests and never part of a module.
	Files []file `json:"files"`
	// Wrapper is the generated module that defines the entry point.
	Wrapper      *file                      `json:"wrapper"`
	Entrypoint   string                     `json:"entrypoint"`
	Sets         []string                   `json:"sets"`
	Capabilities json.RawMessage            `json:"capabilities"`
	Schemas      map[string]json.RawMessage `json:"schemas"`
	Input        json.RawMessage            `json:"input"`
	Filter       string                     `json:"filter"`
}

type problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	File    string `json:"file"`
	Row     int    `json:"row"`
	Col     int    `json:"col"`
}

type formatted struct {
	Path string `json:"path"`
	Text string `json:"text"`
}

type reply struct {
	Problems     []problem         `json:"problems"`
	Facts        *facts            `json:"facts,omitempty"`
	Module       []byte            `json:"module,omitempty"`
	Formatted    []formatted       `json:"formatted,omitempty"`
	Tests        []testResult      `json:"tests,omitempty"`
	Version      string            `json:"version,omitempty"`
	Capabilities *ast.Capabilities `json:"capabilities,omitempty"`
	Result       any               `json:"result,omitempty"`
	Trace        []traceLine       `json:"trace,omitempty"`
}

const errorLimit = 100

func main() {
	bytesIn, err := io.ReadAll(os.Stdin)
	if err != nil {
		fail(err)
	}
	var req request
	decoder := json.NewDecoder(bytes.NewReader(bytesIn))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&req); err != nil {
		fail(err)
	}
	rep, err := answer(&req)
	if err != nil {
		fail(err)
	}
	if rep.Problems == nil {
		rep.Problems = []problem{}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(rep); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(3)
}

func answer(req *request) (*reply, error) {
	switch req.Verb {
	case "version":
		return &reply{Version: version.Version}, nil
	case "capabilities":
		return &reply{Capabilities: nativeCapabilities()}, nil
	case "fmt":
		return formatFiles(req), nil
	case "check", "build", "test", "eval":
		return onPack(req)
	default:
		return nil, fmt.Errorf("unknown verb %q", req.Verb)
	}
}

func isTest(path string) bool { return strings.HasSuffix(path, "_test.rego") }

func formatFiles(req *request) *reply {
	rep := &reply{}
	for _, f := range req.Files {
		out, err := format.SourceWithOpts(f.Path, []byte(f.Text), format.Opts{RegoVersion: ast.RegoV1})
		if err != nil {
			rep.Problems = append(rep.Problems, problems(err)...)
			continue
		}
		rep.Formatted = append(rep.Formatted, formatted{Path: f.Path, Text: string(out)})
	}
	return rep
}

func parse(files []file, capabilities *ast.Capabilities) (map[string]*ast.Module, []problem) {
	modules := make(map[string]*ast.Module, len(files))
	var found []problem
	for _, f := range files {
		module, err := ast.ParseModuleWithOpts(f.Path, f.Text, ast.ParserOptions{
			RegoVersion:       ast.RegoV1,
			ProcessAnnotation: true,
			Capabilities:      capabilities,
		})
		switch {
		case err != nil:
			found = append(found, problems(err)...)
		case module == nil:
			found = append(found, problem{Code: "rego_parse_error", Message: "the file has no package", File: f.Path, Row: 1, Col: 1})
		default:
			modules[f.Path] = module
		}
	}
	return modules, found
}

func onPack(req *request) (*reply, error) {
	capabilities, err := ast.LoadCapabilitiesJSON(bytes.NewReader(req.Capabilities))
	if err != nil {
		return nil, fmt.Errorf("capabilities: %w", err)
	}
	var own, tests []file
	for _, f := range req.Files {
		if isTest(f.Path) {
			tests = append(tests, f)
		} else {
			own = append(own, f)
		}
	}
	rep := &reply{}
	modules, found := parse(own, capabilities)
	rep.Problems = append(rep.Problems, found...)
	if len(rep.Problems) > 0 {
		return rep, nil
	}
	rep.Facts = gather(req, modules)
	testModules := map[string]*ast.Module{}
	if req.Verb != "build" {
		testModules, found = parse(tests, withPrint(capabilities))
		rep.Problems = append(rep.Problems, found...)
		rep.Facts.Files = append(rep.Facts.Files, fileFacts(req, testModules)...)
	}

	strict := ast.NewCompiler().WithCapabilities(capabilities).WithStrict(true).SetErrorLimit(errorLimit)
	strict.Compile(modules)
	rep.Problems = append(rep.Problems, errorsOf(strict.Errors)...)
	if len(rep.Problems) > 0 {
		return rep, nil
	}
	found, err = checkPhases(req, modules, capabilities)
	if err != nil {
		return nil, err
	}
	rep.Problems = append(rep.Problems, found...)
	rep.Facts.Unused = unused(strict)
	if len(rep.Problems) > 0 {
		return rep, nil
	}

	whole := map[string]*ast.Module{}
	for path, module := range modules {
		whole[path] = module
	}
	if req.Wrapper != nil {
		wrapper, found := parse([]file{*req.Wrapper}, capabilities)
		if len(found) > 0 {
			return nil, fmt.Errorf("wrapper: %s", found[0].Message)
		}
		whole[req.Wrapper.Path] = wrapper[req.Wrapper.Path]
	}
	switch req.Verb {
	case "build":
		rep.Module, err = build(req, whole, capabilities)
		if err != nil {
			rep.Problems = append(rep.Problems, problems(err)...)
		}
	case "check":
		for path, module := range testModules {
			whole[path] = module
		}
		compiler := ast.NewCompiler().WithCapabilities(withPrint(capabilities)).WithEnablePrintStatements(true).SetErrorLimit(errorLimit)
		compiler.Compile(whole)
		rep.Problems = append(rep.Problems, errorsOf(compiler.Errors)...)
	case "test":
		for path, module := range testModules {
			whole[path] = module
		}
		if err := runTests(req, rep, whole, withPrint(capabilities)); err != nil {
			rep.Problems = append(rep.Problems, problems(err)...)
		}
	case "eval":
		if err := evaluate(req, rep, whole, capabilities); err != nil {
			rep.Problems = append(rep.Problems, problems(err)...)
		}
	}
	return rep, nil
}

// withPrint is for tests, which show what was printed; from a module the compiler erases it.
func withPrint(capabilities *ast.Capabilities) *ast.Capabilities {
	wider := *capabilities
	wider.Builtins = append(append([]*ast.Builtin{}, capabilities.Builtins...), ast.Print, ast.InternalPrint)
	return &wider
}

func build(req *request, modules map[string]*ast.Module, capabilities *ast.Capabilities) ([]byte, error) {
	b := &bundle.Bundle{Data: map[string]any{}}
	b.SetRegoVersion(ast.RegoV1)
	b.Manifest.Init()
	for _, path := range sortedKeys(modules) {
		b.Modules = append(b.Modules, bundle.ModuleFile{URL: path, Path: path, Parsed: modules[path]})
	}
	compiler := compile.New().
		WithTarget(compile.TargetWasm).
		WithCapabilities(capabilities).
		WithRegoVersion(ast.RegoV1).
		WithPruneUnused(true).
		WithEntrypoints(req.Entrypoint).
		WithBundle(b)
	if err := compiler.Build(context.Background()); err != nil {
		return nil, err
	}
	built := compiler.Bundle().WasmModules
	if len(built) != 1 {
		return nil, errors.New("the compiler made no module")
	}
	return built[0].Raw, nil
}

// problems turns any error of OPA into findings with a place, where it has one.
func problems(err error) []problem {
	var many ast.Errors
	if errors.As(err, &many) {
		return errorsOf(many)
	}
	var one *ast.Error
	if errors.As(err, &one) {
		return errorsOf(ast.Errors{one})
	}
	return []problem{{Code: "rego_error", Message: err.Error()}}
}

func errorsOf(list ast.Errors) []problem {
	out := make([]problem, 0, len(list))
	for _, e := range list {
		p := problem{Code: e.Code, Message: e.Message}
		if e.Location != nil {
			p.File, p.Row, p.Col = e.Location.File, e.Location.Row, e.Location.Col
		}
		if e.Details != nil {
			if lines := e.Details.Lines(); len(lines) > 0 {
				p.Message += "\n" + strings.Join(lines, "\n")
			}
		}
		out = append(out, p)
	}
	return out
}
