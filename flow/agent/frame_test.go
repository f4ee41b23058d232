package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func frame(header string, data ...byte) []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, uint32(len(header))), header...), data...)
}

func sampleMessage() *message {
	m := &message{Agent: "loader", Headline: "h", Input: taskHeader{Purpose: "p", Model: []byte{1}, NoStorage: true}, Retire: true}
	m.add(Artifact{Type: "document", Name: "a", MediaType: "text/plain", Data: []byte("one")})
	m.add(Artifact{Type: "document", MediaType: "x/y", Data: []byte{}})
	return m
}

func TestMessageRoundTrip(t *testing.T) {
	var b bytes.Buffer
	m := sampleMessage()
	for range 2 {
		if err := m.write(&b); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		got, err := readMessage(&b, 3)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("%+v, want %+v", got, m)
		}
	}
	if _, err := readMessage(&b, 3); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestMessageRefused(t *testing.T) {
	many := `{"artifacts":[` + strings.Repeat(`{"size":0},`, maxArtifacts) + `{"size":0}]}`
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"cut length":         {[]byte{0, 0}, io.ErrUnexpectedEOF},
		"cut header":         {frame(`{"agent":"x"}`)[:8], io.ErrUnexpectedEOF},
		"cut artifact":       {frame(`{"artifacts":[{"size":3}]}`, 1, 2), io.ErrUnexpectedEOF},
		"huge header":        {[]byte{0xff, 0xff, 0xff, 0xff}, errMessage},
		"no JSON":            {frame("x"), errMessage},
		"deep":               {frame(strings.Repeat("[", 20000)), errMessage},
		"negative size":      {frame(`{"artifacts":[{"size":-1}]}`), errMessage},
		"size over limit":    {frame(`{"artifacts":[{"size":101}]}`), errMessage},
		"together over it":   {frame(`{"artifacts":[{"size":60},{"size":60}]}`, make([]byte, 120)...), errMessage},
		"too many artifacts": {frame(many), errMessage},
	} {
		if _, err := readMessage(bytes.NewReader(c.in), 100); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := (&message{Headline: strings.Repeat("x", maxHeader)}).write(io.Discard); !errors.Is(err, errMessage) {
		t.Errorf("written header over the limit: %v", err)
	}
}

func TestServeEndsOnJunk(t *testing.T) {
	work := func(*message) *message { return &message{} }
	var out bytes.Buffer
	if code := serve(bytes.NewReader(frame("{}")), &out, work); code != 0 || out.Len() == 0 {
		t.Errorf("after one task: code %d, %d bytes", code, out.Len())
	}
	if code := serve(strings.NewReader("junk that is no frame"), &out, work); code == 0 {
		t.Error("junk ends the worker well")
	}
}

func TestWorkSurvivesPanic(t *testing.T) {
	m := &message{Agent: "loader", Artifacts: []artifactHeader{{Type: "document", Size: 1}}} // no data: a caller's mistake
	if out := work(m); out.Failure == nil || out.Failure.Kind != KindCrashed {
		t.Errorf("%+v", out)
	}
}

func FuzzReadMessage(f *testing.F) {
	var b bytes.Buffer
	if err := sampleMessage().write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(frame(`{"artifacts":[{"type":"t","size":2}],"failure":{"Kind":"input","Text":"x"}}`, 1, 2))
	f.Add(frame(`{"artifacts":[{"size":-1}]}`))
	f.Add([]byte{0, 0, 0, 2, '{'})
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := readMessage(bytes.NewReader(in), 4096)
		if err != nil {
			return
		}
		total := 0
		for i, a := range m.artifacts() {
			if total += len(a.Data); len(a.Data) != m.Artifacts[i].Size {
				t.Fatalf("artifact of %d bytes, header says %d", len(a.Data), m.Artifacts[i].Size)
			}
		}
		if total > 4096 || len(m.data) > maxArtifacts {
			t.Fatalf("%d bytes in %d artifacts", total, len(m.data))
		}
		var again bytes.Buffer
		if err := m.write(&again); err != nil {
			t.Fatal(err)
		}
		back, err := readMessage(&again, 4096)
		if err != nil || len(back.data) != len(m.data) {
			t.Fatalf("does not survive a second trip: %v", err)
		}
	})
}
