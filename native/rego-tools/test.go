package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"
)

type testResult struct {
	place
	Name string `json:"name"`
	// Outcome is pass, fail, error or skip.
	Outcome    string `json:"outcome"`
	Message    string `json:"message"`
	Output     string `json:"output"`
	DurationNs int64  `json:"duration_ns"`
}

func runTests(req *request, rep *reply, modules map[string]*ast.Module, capabilities *ast.Capabilities) error {
	ctx := context.Background()
	compiler := ast.NewCompiler().WithCapabilities(capabilities).WithEnablePrintStatements(true).SetErrorLimit(errorLimit)
	store := inmem.New()
	txn, err := store.NewTransaction(ctx, storage.WriteParams)
	if err != nil {
		return err
	}
	defer store.Abort(ctx, txn)
	results, err := tester.NewRunner().
		SetCompiler(compiler).
		SetStore(store).
		CapturePrintOutput(true).
		RaiseBuiltinErrors(true).
		SetParallel(1).
		SetModules(modules).
		Filter(req.Filter).
		RunTests(ctx, txn)
	if err != nil {
		return err
	}
	rep.Tests = []testResult{}
	for r := range results {
		if r == nil {
			continue
		}
		t := testResult{place: at(r.Location), Name: r.Package + "." + r.Name, Output: string(r.Output), DurationNs: r.Duration.Nanoseconds()}
		switch {
		case r.Error != nil:
			t.Outcome, t.Message = "error", r.Error.Error()
		case r.Skip:
			t.Outcome = "skip"
		case r.Fail:
			t.Outcome = "fail"
		default:
			t.Outcome = "pass"
		}
		rep.Tests = append(rep.Tests, t)
	}
	sort.Slice(rep.Tests, func(i, j int) bool {
		a, b := rep.Tests[i], rep.Tests[j]
		if a.File != b.File {
			return a.File < b.File
		}
		if a.Row != b.Row {
			return a.Row < b.Row
		}
		return a.Name < b.Name
	})
	return nil
}

type traceLine struct {
	place
	Op   string `json:"op"`
	Text string `json:"text"`
}

const traceLimit = 5000

// evaluate runs the entry point on the Go evaluator and lists each expression that failed, with its place.
func evaluate(req *request, rep *reply, modules map[string]*ast.Module, capabilities *ast.Capabilities) error {
	var input any
	if err := json.Unmarshal(req.Input, &input); err != nil {
		return fmt.Errorf("input: %w", err)
	}
	compiler := ast.NewCompiler().WithCapabilities(capabilities).SetErrorLimit(errorLimit)
	if compiler.Compile(modules); compiler.Failed() {
		return compiler.Errors
	}
	tracer := topdown.NewBufferTracer()
	results, err := rego.New(
		rego.Compiler(compiler),
		rego.Query("data.writ.main"),
		rego.Input(input),
		rego.QueryTracer(tracer),
		rego.StrictBuiltinErrors(true),
	).Eval(context.Background())
	if err != nil {
		return err
	}
	if len(results) == 1 && len(results[0].Expressions) == 1 {
		rep.Result = results[0].Expressions[0].Value
	}
	rep.Trace = []traceLine{}
	for _, event := range *tracer {
		if event.Op != topdown.FailOp || event.Location == nil || len(rep.Trace) >= traceLimit {
			continue
		}
		rep.Trace = append(rep.Trace, traceLine{place: at(event.Location), Op: string(event.Op), Text: string(event.Location.Text)})
	}
	return nil
}
