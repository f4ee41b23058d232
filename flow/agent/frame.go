package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A message is what goes between parent and worker: a 4-byte big-endian length, a JSON header of that length, and then
// the artifacts' bytes in order. Neither side trusts the other's lengths.
type message struct {
	Agent     string           `json:"agent,omitempty"` // what to run: a builtin's name, or opText
	Input     taskHeader       `json:"input"`
	Artifacts []artifactHeader `json:"artifacts,omitempty"`
	Headline  string           `json:"headline,omitempty"`
	Failure   *Error           `json:"failure,omitempty"`
	Retire    bool             `json:"retire,omitempty"` // by a worker that has used much of its processor time

	data [][]byte
}

type taskHeader struct {
	Purpose      string          `json:"purpose,omitempty"`
	Parameters   json.RawMessage `json:"parameters,omitempty"`
	NoStorage    bool            `json:"no_storage,omitempty"`
	NoExtraction bool            `json:"no_extraction,omitempty"`
	Model        []byte          `json:"model,omitempty"`
}

type artifactHeader struct {
	Type      string `json:"type"`
	Name      string `json:"name,omitempty"`
	MediaType string `json:"media_type"`
	Size      int    `json:"size"`
}

const (
	maxHeader    = 8 << 20
	maxArtifacts = 64
	maxModel     = 4 << 20 // bytes; it rides in the header, in base64
)

var errMessage = errors.New("message between node and worker")

func (m *message) add(a Artifact) {
	m.Artifacts = append(m.Artifacts, artifactHeader{a.Type, a.Name, a.MediaType, len(a.Data)})
	m.data = append(m.data, a.Data)
}

func (m *message) artifacts() []Artifact {
	out := make([]Artifact, len(m.Artifacts))
	for i, h := range m.Artifacts {
		out[i] = Artifact{h.Type, h.Name, h.MediaType, m.data[i]}
	}
	return out
}

func (m *message) write(w io.Writer) error {
	head, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("%w: %w", errMessage, err)
	}
	if len(head) > maxHeader {
		return fmt.Errorf("%w: header of %d bytes; at most %d", errMessage, len(head), maxHeader)
	}
	if _, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(head))), head...)); err != nil {
		return err
	}
	for _, d := range m.data {
		if _, err := w.Write(d); err != nil {
			return err
		}
	}
	return nil
}

// readMessage reads one message with at most limit bytes of artifacts.
func readMessage(r io.Reader, limit int) (*message, error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > maxHeader {
		return nil, fmt.Errorf("%w: header of %d bytes; at most %d", errMessage, size, maxHeader)
	}
	head := make([]byte, size)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("header cut short: %w", io.ErrUnexpectedEOF)
	}
	m := new(message)
	if err := json.Unmarshal(head, m); err != nil {
		return nil, fmt.Errorf("%w: header is not JSON", errMessage)
	}
	if len(m.Artifacts) > maxArtifacts {
		return nil, fmt.Errorf("%w: %d artifacts; at most %d", errMessage, len(m.Artifacts), maxArtifacts)
	}
	for _, a := range m.Artifacts {
		if a.Size < 0 || a.Size > limit {
			return nil, fmt.Errorf("%w: artifacts of more than %d bytes", errMessage, limit)
		}
		limit -= a.Size
		data := make([]byte, a.Size)
		if _, err := io.ReadFull(r, data); err != nil {
			return nil, fmt.Errorf("artifact cut short: %w", io.ErrUnexpectedEOF)
		}
		m.data = append(m.data, data)
	}
	return m, nil
}
