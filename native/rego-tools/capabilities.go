package main

import (
	"sort"

	"github.com/open-policy-agent/opa/v1/ast"
)

// native lists the built-ins that OPA's wasm target compiles without calling the host, from
// internal/compiler/wasm/wasm.go of the version in go.mod, less the deprecated ones Rego v1 refuses. The two
// rego.metadata functions are rewritten to constants by the compiler.
var native = map[string]bool{}

func init() {
	for _, b := range []*ast.Builtin{
		ast.Plus, ast.Minus, ast.Multiply, ast.Divide, ast.Abs, ast.Round, ast.Ceil, ast.Floor, ast.Rem,
		ast.ArrayConcat, ast.ArrayFlatten, ast.ArrayReverse, ast.ArraySlice,
		ast.SetDiff, ast.And, ast.Or, ast.Intersection, ast.Union,
		ast.IsNumber, ast.IsString, ast.IsBoolean, ast.IsArray, ast.IsSet, ast.IsObject, ast.IsNull, ast.TypeNameBuiltin,
		ast.BitsOr, ast.BitsAnd, ast.BitsNegate, ast.BitsXOr, ast.BitsShiftLeft, ast.BitsShiftRight,
		ast.Count, ast.Sum, ast.Product, ast.Max, ast.Min, ast.Sort,
		ast.Base64IsValid, ast.Base64Decode, ast.Base64Encode, ast.Base64UrlEncode, ast.Base64UrlDecode,
		ast.NetCIDRContains, ast.NetCIDRIntersects,
		ast.Equal, ast.GreaterThan, ast.GreaterThanEq, ast.LessThan, ast.LessThanEq, ast.NotEqual,
		ast.GlobMatch, ast.JSONMarshal, ast.JSONUnmarshal, ast.JSONIsValid, ast.JSONRemove, ast.JSONFilter,
		ast.ObjectFilter, ast.ObjectGet, ast.ObjectKeys, ast.ObjectRemove, ast.ObjectUnion, ast.ObjectUnionN,
		ast.Concat, ast.FormatInt, ast.IndexOf, ast.Substring, ast.Lower, ast.Upper, ast.Contains, ast.StartsWith,
		ast.EndsWith, ast.StringReverse, ast.Split, ast.Replace, ast.ReplaceN, ast.Trim, ast.TrimLeft, ast.TrimPrefix,
		ast.TrimRight, ast.TrimSuffix, ast.TrimSpace, ast.InternalTemplateString,
		ast.NumbersRange, ast.ToNumber, ast.WalkBuiltin, ast.ReachableBuiltin,
		ast.RegexIsValid, ast.RegexMatch, ast.RegexFindAllStringSubmatch,
		ast.Member, ast.MemberWithKey, ast.Equality, ast.Assign,
		ast.RegoMetadataChain, ast.RegoMetadataRule,
	} {
		native[b.Name] = true
	}
}

// nativeCapabilities is what policies/capabilities.json is written from.
func nativeCapabilities() *ast.Capabilities {
	all := ast.CapabilitiesForThisVersion()
	own := &ast.Capabilities{
		FutureKeywords:  all.FutureKeywords,
		WasmABIVersions: all.WasmABIVersions,
		Features:        []string{ast.FeatureKeywordsInRefs, ast.FeatureRegoV1, ast.FeatureTemplateStrings},
		AllowNet:        []string{},
	}
	for _, b := range all.Builtins {
		if native[b.Name] && !b.IsDeprecated() {
			own.Builtins = append(own.Builtins, b)
		}
	}
	sort.Slice(own.Builtins, func(i, j int) bool { return own.Builtins[i].Name < own.Builtins[j].Name })
	return own
}
