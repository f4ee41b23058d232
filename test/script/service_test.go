package script

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// model VARIABLE FOLDER: serves the OpenAI-compatible API on loopback until the script ends, and sets the variable to its
// base URL. The model answers with the folder's file answer, and fails while there is none. What it is asked is kept in the
// folder: the request's body in asked, the key in key.
func model(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[1])
	serve(ts, args[0], "/v1", func(w http.ResponseWriter, r *http.Request) {
		answer, err := keep(dir, r)
		if err == nil {
			err = os.WriteFile(dir+"/key", []byte(r.Header.Get("Authorization")), 0o600)
		}
		if err != nil || r.URL.Path != "/v1/chat/completions" {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"id": "1", "object": "chat.completion", "model": "m",
			"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": string(answer)}}},
			"usage":   map[string]any{"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}})
	})
}

// service VARIABLE FOLDER: like model, for an http agent: the answer's file is the response's body.
func service(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[1])
	serve(ts, args[0], "/agent", func(w http.ResponseWriter, r *http.Request) {
		answer, err := keep(dir, r)
		if err != nil {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(answer)
	})
}

// keep keeps what was asked, and returns what is to be answered.
func keep(dir string, r *http.Request) (answer []byte, err error) {
	asked, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(dir+"/asked", asked, 0o600); err != nil {
		return nil, err
	}
	answer, err = os.ReadFile(dir + "/answer")
	return bytes.TrimSpace(answer), err
}

func serve(ts *testscript.TestScript, variable, path string, h http.HandlerFunc) {
	l, err := net.Listen("tcp", of(ts).host+":0")
	ts.Check(err)
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(l) }()
	ts.Defer(func() { srv.Close() })
	ts.Setenv(variable, "http://"+l.Addr().String()+path)
}
