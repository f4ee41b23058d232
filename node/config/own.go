package config

import (
	"fmt"
	"strings"

	"fednode/flow/policy"
)

// The node's own files, which Check knows beside the reference kinds.
const (
	KindNode      Kind = "node"   // node.yaml
	KindNodeRules Kind = "policy" // policy.yaml
)

// ownKinds are the files of a data directory that its operator writes.
func ownKinds() []kind {
	return []kind{nodeKind(), {name: KindNodeRules, document: policy.LocalPolicy{}, check: func(*checker, any) {},
		decode: func(name string, data []byte) (any, error) { return policy.ParseLocal(name, data) }}}
}

func nodeKind() kind {
	return strict(KindNode, "One organisation's node: the file node.yaml in its data directory, read when it starts.", nodeRows(),
		[]string{"organization", "organization.id"}, func(c *checker, n *Node) {
			n.check(c)
			for name, a := range n.Agents {
				for _, err := range flatten(a.Validate(name)) {
					c.fail("agents."+name, "", "%s", strings.TrimPrefix(err.Error(), "agents."+name+": "))
				}
			}
		})
}

func nodeRows() []Row {
	return append([]Row{
		honoured("organization.id", "the organisation's name in the federation, for good"),
		honoured("organization.name", "its name for people; default the id"),
		honoured("organization.domain", "its DNS domain, to which its certificates are constrained"),
		honoured("organization.jurisdiction", "whose law it is under; rules may look at it"),
		honoured("instance", "this node's name; default the id and -1"),
		honoured("listen", "where it serves the federation; default :443"),
		honoured("advertise[]", "where the other members reach it; default the domain with the port of listen"),
		honoured("keys.passphrase.file", "file with the passphrase of the keys, for its owner only; relative to node.yaml"),
		honoured("keys.passphrase.env", "environment variable with the passphrase; taken out of the environment when read"),
		honoured("keys.passphrase.credential", "systemd credential with the passphrase"),
		honoured("keys.unprotected", "the keys lie on the disk without a passphrase"),
		honoured("limits.requests", "requests handled at once"),
		honoured("limits.requests_per_peer", "of them, for one peer"),
		honoured("limits.requests_per_second", "of one peer, on average"),
		honoured("limits.bytes_per_second", "of one peer's envelopes, on average"),
		honoured("limits.artifact_size", "largest artifact fetched"),
		honoured("limits.call_timeout", "how long a peer may take to answer"),
		honoured("limits.memory", "for no-storage artifacts; default 512MB"),
		honoured("limits.agents", "agents running at once; default 4"),
		honoured("log.level", "least level logged; default info"),
		honoured("log.format", "how log lines are written; default text"),
		honoured("monitor.listen", "where metrics and health are served as plain HTTP; default nowhere"),
	}, agentRows()...)
}

func agentRows() []Row {
	return []Row{
		honoured("agents.*.kind", "how the agent runs; the key above is its name in workflows"),
		honoured("agents.*.inputs[]", "data types it needs; builtins declare their own"),
		honoured("agents.*.optional[]", "data types it uses when it gets them"),
		honoured("agents.*.outputs[]", "data types it makes"),
		honoured("agents.*.timeout", "of one task; default the step's"),
		honoured("agents.*.builtin", "builtin: loader, classifier, pii-detector or reviewer"),
		honoured("agents.*.model", "builtin classifier: file that fednode agents train wrote, relative to node.yaml; llm: the model's name"),
		honoured("agents.*.command[]", "exec: program, absolute, and its arguments"),
		honoured("agents.*.paths[]", "exec: further files and folders that it may read and execute"),
		honoured("agents.*.memory", "exec: address space of each process; default 2GB"),
		honoured("agents.*.url", "http: endpoint of the exec protocol; llm: base of an OpenAI-compatible API, with /v1"),
		honoured("agents.*.prompt", "llm: template (Go text/template) over .Purpose and .Inputs, by data type, each with .Name and .Text"),
		honoured("agents.*.schema.*", "llm: JSON schema of the answer"),
		honoured("agents.*.max_tokens", "llm: of one task, prompt and answers together; default 8192"),
		honoured("agents.*.api_key.file", "llm: file with the key"),
		honoured("agents.*.api_key.env", "llm: environment variable with the key"),
		honoured("agents.*.automatic", "approval: rule that approves without a human, over the inputs by data type, '-' written '_'"),
		honoured("agents.*.expires", "approval: how long a human has; default the step's timeout"),
	}
}

// LoadNode reads node.yaml, strictly, and fills in the defaults. The error
// joins one *strictyaml.Error for everything that is wrong with it.
func LoadNode(name string, data []byte) (*Node, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s has %d bytes; %d is the limit", name, len(data), maxFile)
	}
	_, document, err := nodeKind().inspect(name, data, Env{})
	if err != nil {
		return nil, err
	}
	n := document.(*Node)
	n.setDefaults()
	return n, nil
}
