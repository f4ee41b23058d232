package config

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"fednode/store/strictyaml"
)

// kinds lists the reference formats: the eleven kinds, and the envelope.
func kinds() []kind {
	return []kind{
		auditKind(), deploymentKind(), iamKind(), incidentKind(), learningKind(), monitoringKind(),
		securityKind(), storageKind(), workflowKind(), policyKind(), computationKind(),
		messageKind(),
	}
}

// recognise finds the kind of a file by its content: the kind whose document
// has most of the file's keys, keys with a typing mistake included, so that a
// mistyped file still gets an error that fits.
func recognise(name string, data []byte) (kind, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return kind{}, syntaxError(name, data, err)
	}
	if len(document.Content) == 0 || document.Content[0].Kind != yaml.MappingNode {
		return kind{}, unrecognised(name, "the file holds no keys", "")
	}
	root := document.Content[0]
	var best, second kind
	most, next := 0, 0
	for _, k := range append(kinds(), ownKinds()...) {
		score := fit(root, reflect.TypeOf(k.document), 0)
		if score > most {
			best, most, second, next = k, score, best, most
		} else if score > next {
			second, next = k, score
		}
	}
	switch {
	case most == 0:
		return kind{}, unrecognised(name, "none of its keys is known", "")
	case most == next:
		return kind{}, unrecognised(name, fmt.Sprintf("its keys fit %s as well as %s", best.name, second.name), best.name)
	case !telling(root, reflect.TypeOf(best.document)):
		return kind{}, unrecognised(name, "its keys could be anything", best.name)
	}
	return best, nil
}

// syntaxError reports data that is no YAML in the words of strictyaml, which
// knows the place.
func syntaxError(name string, data []byte, err error) error {
	var anything any
	if strict := strictyaml.Decode(name, data, &anything); strict != nil {
		return strict
	}
	return fmt.Errorf("%s: %w", name, err)
}

// maxFitDepth bounds how deep recognition looks.
const maxFitDepth = 4

// fit counts how well the keys of a file match a type; keys at the top count
// most.
func fit(n *yaml.Node, t reflect.Type, depth int) int {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if depth >= maxFitDepth || isLeaf(t) {
		return 0
	}
	switch {
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode && len(n.Content) > 0:
		return fit(n.Content[0], t.Elem(), depth)
	case t.Kind() != reflect.Struct || n.Kind != yaml.MappingNode:
		return 0
	}
	weight := 1
	if depth == 0 {
		weight = 8
	}
	score := 0
	for i := 0; i+1 < len(n.Content); i += 2 {
		f, exact, ok := match(n.Content[i].Value, t)
		switch {
		case exact:
			score += 4 * weight
		case ok:
			score += 3 * weight
		}
		if ok {
			score += fit(n.Content[i+1], t.FieldByIndex(f.index).Type, depth+1)
		}
	}
	return score
}

// match finds the field a key means.
func match(key string, t reflect.Type) (f field, exact, ok bool) {
	list := fields(t)
	keys := make([]string, len(list))
	for i, f := range list {
		if f.key == key {
			return f, true, true
		}
		keys[i] = f.key
	}
	near := nearest(key, keys)
	for _, f := range list {
		if near != "" && f.key == near {
			return f, false, true
		}
	}
	return field{}, false, false
}

// telling reports whether a file has a top-level key that says more than
// "name", "version" or "type", which any file may have.
func telling(n *yaml.Node, t reflect.Type) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		f, _, ok := match(n.Content[i].Value, t)
		if ok && f.key != "name" && f.key != "version" && f.key != "type" {
			return true
		}
	}
	return false
}

// unrecognised is the error for a file of no known kind.
func unrecognised(name, why string, near Kind) error {
	var list []string
	for _, k := range kinds() {
		if k.name != KindMessage {
			list = append(list, string(k.name))
		}
	}
	if near == "" {
		base := name[strings.LastIndexByte(name, '/')+1:]
		near = Kind(nearest(strings.TrimSuffix(strings.TrimSuffix(base, ".yaml"), ".yml"), list))
	}
	text := fmt.Sprintf("this is no configuration file fednode knows: %s; the kinds are %s, the reference envelope, and a node's own node.yaml and policy.yaml",
		why, strings.Join(list, ", "))
	return &strictyaml.Error{File: name, Line: 1, Col: 1, Text: text, Suggestion: string(near)}
}
