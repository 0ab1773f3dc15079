package main

import (
	"encoding/json"
	"sort"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

type place struct {
	File string `json:"file"`
	Row  int    `json:"row"`
	Col  int    `json:"col"`
}

type named struct {
	place
	Name string `json:"name"`
}

type factFile struct {
	Path string `json:"path"`
	Test bool   `json:"test"`
	// Package is the path after data., joined by dots.
	Package named   `json:"package"`
	Imports []named `json:"imports"`
	Withs   []place `json:"withs"`
	// DataRefs are references that start at data, written out.
	DataRefs []named `json:"data_refs"`
	// Schemas are annotations that would replace Writ's own schemas.
	Schemas []place `json:"schemas"`
}

type annotation struct {
	place
	Title  string          `json:"title"`
	Custom json.RawMessage `json:"custom"`
}

type rule struct {
	place
	// Name is the first part of the head's reference, Ref all of it.
	Name string `json:"name"`
	Ref  string `json:"ref"`
	// Form is set, object, complete, function or default.
	Form        string       `json:"form"`
	Else        bool         `json:"else"`
	Annotations []annotation `json:"annotations"`
	// Keys are those of the element's literal object; null when the element is not one.
	Keys []named `json:"keys"`
	// BareInput are references to the input in the element outside template strings, by the key they stand under: where
	// one is undefined, the element is, while a template string says so and stays.
	BareInput []named `json:"bare_input"`
	// Named tells whether the element says "rule": rego.metadata.rule().
	Named bool `json:"named"`
	// Phases the rule can hold in, by what it and the rules it needs demand of input.phase.
	Phases []string `json:"phases"`
	// UnknownPhases are values input.phase is compared with and never has.
	UnknownPhases []named `json:"unknown_phases"`
}

type facts struct {
	Files []factFile `json:"files"`
	Rules []rule     `json:"rules"`
	// Unused are rules of no output set that nothing refers to.
	Unused   []named   `json:"unused"`
	Suspects []suspect `json:"suspects"`
}

func at(location *ast.Location) place {
	if location == nil {
		return place{}
	}
	return place{File: location.File, Row: location.Row, Col: location.Col}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func gather(req *request, modules map[string]*ast.Module) *facts {
	f := &facts{Files: fileFacts(req, modules), Rules: []rule{}, Unused: []named{}}
	phases := newPhases(req, modules)
	for _, path := range sortedKeys(modules) {
		for _, r := range modules[path].Rules {
			f.Rules = append(f.Rules, ruleFacts(r, modules[path], phases))
		}
	}
	f.Suspects = findSuspects(req, modules, phases)
	return f
}

func dotted(ref ast.Ref) string {
	return strings.TrimPrefix(ref.String(), "data.")
}

func fileFacts(_ *request, modules map[string]*ast.Module) []factFile {
	out := []factFile{}
	for _, path := range sortedKeys(modules) {
		m := modules[path]
		ff := factFile{
			Path: path, Test: isTest(path),
			Package: named{place: at(m.Package.Location), Name: dotted(m.Package.Path)},
			Imports: []named{}, Withs: []place{}, DataRefs: []named{}, Schemas: []place{},
		}
		for _, i := range m.Imports {
			ff.Imports = append(ff.Imports, named{place: at(i.Location), Name: i.Path.String()})
		}
		for _, a := range m.Annotations {
			if len(a.Schemas) > 0 {
				ff.Schemas = append(ff.Schemas, at(a.Location))
			}
		}
		for _, r := range m.Rules {
			ast.WalkWiths(r, func(w *ast.With) bool {
				ff.Withs = append(ff.Withs, at(w.Location))
				return false
			})
			dataRefs(r, &ff.DataRefs)
		}
		out = append(out, ff)
	}
	return out
}

// dataRefs collects what starts at data, the whole of it included, and what stands inside such references.
func dataRefs(node any, out *[]named) {
	ast.WalkTerms(node, func(t *ast.Term) bool {
		switch v := t.Value.(type) {
		case ast.Ref:
			if len(v) > 0 && v[0].Equal(ast.DefaultRootDocument) {
				*out = append(*out, named{place: at(t.Location), Name: v.String()})
				for _, part := range v[1:] {
					dataRefs(part, out)
				}
				return true
			}
		case ast.Var:
			if v.Equal(ast.DefaultRootDocument.Value) {
				*out = append(*out, named{place: at(t.Location), Name: "data"})
			}
		}
		return false
	})
}

func form(r *ast.Rule) string {
	switch {
	case r.Default:
		return "default"
	case len(r.Head.Args) > 0:
		return "function"
	}
	switch r.Head.DocKind() {
	case ast.PartialSetDoc:
		return "set"
	case ast.PartialObjectDoc:
		return "object"
	default:
		return "complete"
	}
}

func ruleName(r *ast.Rule) string {
	if v, ok := r.Head.Ref()[0].Value.(ast.Var); ok {
		return string(v)
	}
	return r.Head.Ref()[0].String()
}

func ruleFacts(r *ast.Rule, module *ast.Module, phases *phases) rule {
	f := rule{
		place: at(r.Location), Name: ruleName(r), Ref: r.Head.Ref().String(), Form: form(r), Else: r.Else != nil,
		Annotations: []annotation{}, BareInput: []named{}, Phases: phases.names(phases.own(r)), UnknownPhases: phases.unknown(r),
	}
	for _, a := range module.Annotations {
		if a.Scope != "rule" || ast.NewAnnotationsRef(a).GetRule() != r {
			continue
		}
		custom, err := json.Marshal(a.Custom)
		if err != nil {
			custom = []byte("null")
		}
		f.Annotations = append(f.Annotations, annotation{place: at(a.Location), Title: a.Title, Custom: custom})
	}
	if f.Form != "set" {
		return f
	}
	element, ok := r.Head.Key.Value.(ast.Object)
	if !ok {
		return f
	}
	f.Keys = []named{}
	element.Foreach(func(k, v *ast.Term) {
		key, ok := k.Value.(ast.String)
		if !ok {
			f.Keys = append(f.Keys, named{place: at(k.Location), Name: ""})
			return
		}
		f.Keys = append(f.Keys, named{place: at(k.Location), Name: string(key)})
		ast.WalkTerms(v, func(t *ast.Term) bool {
			switch inner := t.Value.(type) {
			case *ast.TemplateString:
				return true
			case ast.Ref:
				if inner[0].Equal(ast.InputRootDocument) {
					f.BareInput = append(f.BareInput, named{place: at(t.Location), Name: string(key)})
				}
			}
			return false
		})
		if call, ok := v.Value.(ast.Call); ok && string(key) == "rule" && len(call) == 1 {
			f.Named = call[0].String() == ast.RegoMetadataRule.Name
		}
	})
	sort.SliceStable(f.Keys, func(i, j int) bool {
		a, b := f.Keys[i], f.Keys[j]
		return a.Row < b.Row || (a.Row == b.Row && a.Col < b.Col)
	})
	return f
}

// unused names the rules that no other rule depends on, by the compiler's own graph.
func unused(compiler *ast.Compiler) []named {
	out := []named{}
	needed := map[string]bool{}
	for _, path := range sortedKeys(compiler.Modules) {
		for _, r := range compiler.Modules[path].Rules {
			if len(compiler.Graph.Dependents(r)) > 0 {
				needed[ruleName(r)] = true
			}
		}
	}
	for _, path := range sortedKeys(compiler.Modules) {
		for _, r := range compiler.Modules[path].Rules {
			if !needed[ruleName(r)] {
				out = append(out, named{place: at(r.Location), Name: ruleName(r)})
			}
		}
	}
	return out
}
