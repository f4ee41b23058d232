package cli

import (
	"encoding/base64"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fednode/flow/agent"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == agent.WorkerArg { // a worker that a test's agents started
		os.Exit(agent.WorkerMain())
	}
	os.Exit(m.Run())
}

// scannerOf returns one that looks for the documents.
func scannerOf(t *testing.T, docs []document) *traceScanner {
	t.Helper()
	agents, err := agent.NewSet(nil, agent.Env{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer agents.Close()
	s := newTraceScanner()
	for _, doc := range docs {
		if err := s.addDocument(t.Context(), agents, doc); err != nil {
			t.Fatalf("%s: %v", doc.name, err)
		}
	}
	return s
}

// noise is what a disk holds besides: bytes that are no document's.
func noise() []byte {
	b := make([]byte, 64<<10)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestScanFindsWhatIsPlanted puts traces of the demo's documents on a disk that holds much else.
func TestScanFindsWhatIsPlanted(t *testing.T) {
	docs, err := loadDocuments("")
	if err != nil {
		t.Fatal(err)
	}
	s := scannerOf(t, docs)
	raw := map[string]string{}
	for _, doc := range docs {
		raw[doc.name] = string(doc.data)
	}
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	for name, c := range map[string]struct{ planted, of string }{
		"a whole PDF":                    {raw["lease.pdf"], "lease.pdf"},
		"a piece of a PDF":               {raw["lease.pdf"][1003:][:traceBytes], "lease.pdf"},
		"a piece of plain text":          {raw["rechnung.txt"][101:][:traceBytes], "rechnung.txt"},
		"a text in base64":               {encode(raw["rechnung.txt"]), "rechnung.txt"},
		"a text in an object, in base64": {encode(`{"x":"` + raw["rechnung.txt"][300:400] + `"}`), "rechnung.txt"},
		"text that a PDF draws":          {"keep the interior clean and in good condition", "the text of lease.pdf"},
		"text that a DOCX deflates":      {"disclose it only to employees and advisers who", "the text of nda.docx"},
		"text that a mail encodes":       {"our warehouse in Zürich until yesterday", "the text of pallets.eml"},
		"redacted text":                  {"“the Landlord”) and <PERSON>, born <DATE_OF_BIRTH>", "the document made of lease.pdf"},
		"the findings":                   {`"start":2183,"end":2210,"score":1,"rec`, "the pii-findings made of lease.pdf"},
		"a person":                       {`who="Tobias Ferncastle"`, "a PERSON of lease.pdf"},
		"a date of birth":                {`born:22 July 1991.`, "a DATE_OF_BIRTH of lease.pdf"},
		"an account":                     {"\x00GB29 NWBK 6016 1331 9268 19\x00", "a IBAN_CODE of lease.pdf"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "org-b", "deep")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			hay := noise()
			for file, data := range map[string][]byte{"clean": hay, "node.db": append(append(hay[:777:777], c.planted...), hay[777:]...)} {
				if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			files, traces, err := s.search(root, filepath.Join(root, "org-b"))
			if err != nil || files != 2 || len(traces) != 1 {
				t.Fatalf("%d files, traces %+v, %v", files, traces, err)
			}
			got := traces[0]
			if got.What != c.of || got.File != filepath.Join("org-b", "deep", "node.db") || got.Offset < 777 || got.Offset > 777+len(c.planted) {
				t.Errorf("found %+v, want %s", got, c.of)
			}
		})
	}
}

// TestScanFindsValuesInBase64 looks for values that are longer or shorter, whatever stands beside them.
func TestScanFindsValuesInBase64(t *testing.T) {
	for _, value := range []string{"22 July 1991", "1991-07-22", "SK 48 17 93 C", "n.ashcombe@calderridge.example"} {
		s := newTraceScanner()
		s.addValue(source{"x", "a value"}, value)
		for _, before := range []string{"", "a", "\xff\xff", "abc"} {
			for _, after := range []string{"", "\xff", "zz"} {
				text := base64.StdEncoding.EncodeToString([]byte(before + value + after))
				if _, _, found := s.find([]byte("\n" + text)); !found {
					t.Errorf("%q is not found in %s", before+value+after, text)
				}
			}
		}
		if of, _, found := s.find([]byte(value[:len(value)-1] + "?")); found {
			t.Errorf("half of it is taken for %v", of)
		}
	}
}

// TestScanTakesNothingElseForATrace shows the scanner what nodes keep by right.
func TestScanTakesNothingElseForATrace(t *testing.T) {
	docs, err := loadDocuments("")
	if err != nil {
		t.Fatal(err)
	}
	s := scannerOf(t, docs)
	other := "The undersigned agree to nothing that stands in any of the demo's documents, nor to 198.51.100.7, jo@example.org or 3 May 1970."
	for name, data := range map[string][]byte{"random bytes": noise(), "zeros": make([]byte, 1<<16), "another text": []byte(other), "that in base64": []byte(base64.StdEncoding.EncodeToString([]byte(other))),
		"a PDF's beginning": []byte("%PDF-1.7\n%\xb5\xed\xae\xfb\n"), "nothing": nil} {
		if of, at, found := s.find(data); found {
			t.Errorf("%s: %v at %d", name, of, at)
		}
	}
}

// TestScanLooksForWhatCannotBeRead looks for the bytes of files that no agent can read, and bounds what a large one takes.
func TestScanLooksForWhatCannotBeRead(t *testing.T) {
	large := []byte(strings.Repeat("0123456789abcdef", 1<<17))
	for i, r := 0, rand.New(rand.NewPCG(3, 4)); i < len(large); i++ {
		large[i] = byte(r.Uint32())
	}
	s := scannerOf(t, []document{{name: "junk.pdf", data: noise()}, {name: "large.bin", data: large}})
	if of, _, found := s.find(append([]byte("x"), noise()[500:][:traceBytes]...)); !found || of.String() != "junk.pdf" {
		t.Errorf("junk.pdf: %v %v", of, found)
	}
	if of, _, found := s.find(large[1<<20:][:1<<10]); !found || of.String() != "large.bin" {
		t.Errorf("large.bin: %v %v", of, found)
	}
	if most := 6 * maxWindows; len(s.windows) > most {
		t.Errorf("%d windows, want %d at most", len(s.windows), most)
	}
}

// TestScanOfWhatAnAgentRefuses: a document that the detector can't take keeps no other from being looked for.
func TestScanOfWhatAnAgentRefuses(t *testing.T) {
	flood := strings.Repeat("a@example.org ", 100_001)
	s := scannerOf(t, []document{{name: "flood.txt", data: []byte(flood)}, {name: "junk.pdf", data: []byte("no PDF, and longer than what is passed over as too short to tell")}})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kept"), []byte(flood), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, traces, err := s.search(dir, dir); err != nil || len(traces) == 0 {
		t.Errorf("the text of flood.txt is not found: %v, %v", traces, err)
	}
}
