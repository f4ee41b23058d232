package script

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"fednode/flow/agent"
	"fednode/test/netns"
	"fednode/transport"
	"fednode/ui"
	"fednode/ui/cli"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == agent.WorkerArg { // a worker that a script's node started
		os.Exit(agent.WorkerMain())
	}
	testscript.Main(m, map[string]func(){"fednode": func() { os.Exit(cli.Main(os.Args[1:])) }})
}

// patience bounds what a script waits for; nothing is expected to take a tenth of it.
const patience = time.Minute

func TestScripts(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	var scripts atomic.Uint32
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("KINDS", filepath.Join(root, "node", "config", "testdata", "kinds"))
			e.Setenv("PDFS", filepath.Join(root, "flow", "agent", "builtin", "pdf", "testdata"))
			e.Setenv("REFERENCE", os.Getenv("FEDNODE_REFERENCE"))
			e.Setenv("TERM", "xterm")
			n := &nodes{host: fmt.Sprintf("127.7.%d.1", scripts.Add(1)), running: map[string]*exec.Cmd{}}
			e.Values[nodesKey{}] = n
			monitor, err := net.Listen("tcp", n.host+":0")
			if err != nil {
				return err
			}
			e.Setenv("HOST", n.host)
			e.Setenv("MONITOR", monitor.Addr().String()) // the script's own address: nobody else takes the port meanwhile
			return monitor.Close()
		},
		Condition: func(cond string) (bool, error) {
			if cond == "reference" {
				return os.Getenv("FEDNODE_REFERENCE") != "", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "federation": federation, "start": start, "halt": halt, "crash": crash, "await": await, "field": field,
			"flip": flip, "truncate": truncate, "bomb": bomb, "terminal": terminal, "typed": typed, "unprivileged": unprivileged,
			"append": appendLine, "place": place, "get": get, "occupy": occupy, "model": model, "service": service,
		},
	})
}

// exits CODE COMMAND...: runs the command, which must end with that code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	expect(ts, want, ts.Exec(args[1], args[2:]...))
}

func expect(ts *testscript.TestScript, want int, err error) {
	got := 0
	if x := new(exec.ExitError); errors.As(err, &x) {
		got = x.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\n%s%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

type nodesKey struct{}

// nodes are a script's node processes, by data directory.
type nodes struct {
	host    string // a loopback address of the script's own
	running map[string]*exec.Cmd
}

func of(ts *testscript.TestScript) *nodes { return ts.Value(nodesKey{}).(*nodes) }

// federation DIR N [ORG=AGENTS-FILE] [pass=FILE]...: founds one of N organisations, whose nodes don't run yet.
func federation(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: federation DIR N [ORG=FILE]...")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	p := netns.Plan{Name: "script", Dir: ts.MkAbs(args[0])}
	var held []io.Closer // until all ports are known, so that they differ
	for i := range n {
		c, tcp, err := transport.Listen(of(ts).host + ":0")
		ts.Check(err)
		held = append(held, c, tcp)
		p.Orgs = append(p.Orgs, netns.Org{ID: transport.OrgID("org-" + string(rune('a'+i))), Address: c.LocalAddr().String()})
	}
	for _, c := range held {
		c.Close()
	}
	for _, arg := range args[2:] {
		name, file, _ := strings.Cut(arg, "=")
		i := slices.IndexFunc(p.Orgs, func(o netns.Org) bool { return string(o.ID) == name })
		switch {
		case name == "pass":
			for i := range p.Orgs {
				p.Orgs[i].Pass = ts.MkAbs(file)
			}
		case i >= 0:
			p.Orgs[i].Agents = ts.ReadFile(file)
		default:
			ts.Fatalf("%q is none of the organisations", name)
		}
	}
	id, err := p.Found(context.Background())
	ts.Check(err)
	ts.Setenv("FEDERATION", id)
}

// start DIR...: runs a node on each data directory and waits until it is ready.
func start(ts *testscript.TestScript, neg bool, args []string) {
	program, err := exec.LookPath("fednode")
	ts.Check(err)
	n := of(ts)
	for _, arg := range args {
		dir := ts.MkAbs(arg)
		log, err := os.OpenFile(dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		ts.Check(err)
		cmd := exec.Command(program, "-D", dir, "run")
		cmd.Env = environment(ts)
		cmd.Stdout, cmd.Stderr = log, log
		ts.Check(cmd.Start())
		log.Close()
		n.running[dir] = cmd
		ts.Defer(func() {
			if n.running[dir] == cmd {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
		})
	}
	for _, arg := range args {
		cl := ui.NewClient(ts.MkAbs(arg))
		if err := cl.WaitReady(context.Background(), patience); err != nil {
			ts.Fatalf("%s: %v\n%s", arg, err, ts.ReadFile(arg+".log"))
		}
		cl.Close()
	}
}

// halt DIR...: asks each node to end, which must do so without an error.
func halt(ts *testscript.TestScript, neg bool, args []string) {
	end(ts, args, syscall.SIGTERM, func(dir string, err error) {
		if err != nil {
			ts.Fatalf("%s: %v\n%s", dir, err, ts.ReadFile(dir+".log"))
		}
	})
}

// crash DIR...: kills each node.
func crash(ts *testscript.TestScript, neg bool, args []string) {
	end(ts, args, syscall.SIGKILL, func(string, error) {})
}

func end(ts *testscript.TestScript, dirs []string, sig syscall.Signal, ended func(dir string, err error)) {
	for _, arg := range dirs {
		dir := ts.MkAbs(arg)
		cmd := of(ts).running[dir]
		if cmd == nil {
			ts.Fatalf("no node runs on %s", arg)
		}
		ts.Check(cmd.Process.Signal(sig))
		delete(of(ts).running, dir)
		ended(arg, cmd.Wait())
	}
}

// await PATTERN COMMAND...: runs the command again and again until it succeeds and its output contains PATTERN.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await TEXT COMMAND...")
	}
	for limit := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // the command itself takes as long
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		if err == nil && strings.Contains(out, args[0]) {
			return
		}
		if time.Now().After(limit) {
			ts.Fatalf("waited in vain for %q: %v\n%s%s", args[0], err, out, ts.ReadFile("stderr"))
		}
	}
}

// field VARIABLE PATH: sets the variable to what the last output, in JSON, has at the path, such as runs.0.id. With ! the
// path must not be there.
func field(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: field VARIABLE PATH")
	}
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	for _, key := range strings.Split(args[1], ".") {
		var found bool
		switch x := v.(type) {
		case map[string]any:
			v, found = x[key]
		case []any:
			i, err := strconv.Atoi(key)
			if found = err == nil && i < len(x); found {
				v = x[i]
			}
		}
		if !found {
			if neg {
				return
			}
			ts.Fatalf("no %s in %s", args[1], ts.ReadFile("stdout"))
		}
	}
	if neg {
		ts.Fatalf("%s is there: %v", args[1], v)
	}
	ts.Setenv(args[0], fmt.Sprint(v))
}

// flip FILE OFFSET: changes one bit of the file; a negative offset counts from the end.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	name := theFile(ts, args[0])
	data, err := os.ReadFile(name)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(data)
	}
	data[at] ^= 1
	ts.Check(os.WriteFile(name, data, 0o600))
}

// theFile returns the path of the one file that matches the pattern.
func theFile(ts *testscript.TestScript, pattern string) string {
	found, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	if len(found) != 1 {
		ts.Fatalf("%s matches %d files, want 1", pattern, len(found))
	}
	return found[0]
}

// truncate FILE COPY BYTES: copies the beginning of the file.
func truncate(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	data := ts.ReadFile(args[0])
	if n >= len(data) {
		ts.Fatalf("%s has only %d bytes", args[0], len(data))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(data[:n]), 0o600))
}

// bomb FILE: writes a DOCX of some dozen KiB that unpacks to 64 MiB.
func bomb(ts *testscript.TestScript, neg bool, args []string) {
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	z := zip.NewWriter(f)
	w, err := z.Create("[Content_Types].xml")
	ts.Check(err)
	_, err = io.WriteString(w, `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>`)
	ts.Check(err)
	w, err = z.Create("word/document.xml")
	ts.Check(err)
	block := []byte(strings.Repeat("<w:p/>", 1<<17))
	for range 64 << 20 / len(block) {
		_, err = w.Write(block)
		ts.Check(err)
	}
	ts.Check(errors.Join(z.Close(), f.Close()))
}

// terminal COMMAND...: runs the command with standard output on a terminal; what it writes there is the output.
func terminal(ts *testscript.TestScript, neg bool, args []string) {
	master, tty := openTerminal(ts)
	defer master.Close()
	cmd := command(ts, args)
	cmd.Stdout = tty
	ts.Check(cmd.Start())
	tty.Close()
	_, _ = io.Copy(ts.Stdout(), master) // ends with EIO once the command has closed the terminal
	if err := cmd.Wait(); (err != nil) != neg {
		ts.Fatalf("%v", err)
	}
}

// typed CODE TEXT COMMAND...: runs the command with standard input on a terminal, at which TEXT is typed, each word on a
// line of its own. It must end with the code.
func typed(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	master, tty := openTerminal(ts)
	defer master.Close()
	cmd := command(ts, args[2:])
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, ts.Stdout(), ts.Stderr()
	ts.Check(cmd.Start())
	tty.Close()
	_, err = master.WriteString(strings.Join(strings.Fields(args[1]), "\n") + "\n")
	ts.Check(err)
	expect(ts, want, cmd.Wait())
}

func openTerminal(ts *testscript.TestScript) (master, tty *os.File) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	ts.Check(err)
	ts.Check(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	ts.Check(err)
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	ts.Check(err)
	return master, tty
}

// unprivileged CODE COMMAND...: runs the command as a user who owns the files but is not root, whoever runs the test. The
// command must end with the code.
func unprivileged(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	cmd := command(ts, args[1:])
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	if os.Geteuid() == 0 {
		me := []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 0, Size: 1}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: me, GidMappings: me}
	}
	expect(ts, want, cmd.Run())
}

func command(ts *testscript.TestScript, args []string) *exec.Cmd {
	program, err := exec.LookPath(args[0])
	ts.Check(err)
	cmd := exec.Command(program, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = environment(ts)
	return cmd
}

// environment is what a script's commands get of its variables.
func environment(ts *testscript.TestScript) (env []string) {
	for _, name := range []string{"PATH", "HOME", "TERM", "NO_COLOR", "FEDNODE_DIR", "TMPDIR", "FED_PASS", "CREDENTIALS_DIRECTORY"} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// append FILE LINE: adds a line.
func appendLine(ts *testscript.TestScript, neg bool, args []string) {
	data := ts.ReadFile(args[0]) + args[1] + "\n"
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(data), 0o600))
}

// place NODE.YAML [LINE]: makes the line all that node.yaml says about keys.
func place(ts *testscript.TestScript, neg bool, args []string) {
	before, after, found := strings.Cut(ts.ReadFile(args[0]), "keys:\n")
	if found {
		_, after, _ = strings.Cut(after, "\n")
	}
	if len(args) == 2 {
		after = "keys:\n  " + args[1] + "\n" + after
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(before+after), 0o600))
}

// get URL: fetches it; the body is the output. Fails unless the answer is 200.
func get(ts *testscript.TestScript, neg bool, args []string) {
	resp, err := http.Get(args[0])
	ts.Check(err)
	defer resp.Body.Close()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
	if (resp.StatusCode != http.StatusOK) != neg {
		ts.Fatalf("%s: %s", args[0], resp.Status)
	}
}

// occupy ADDRESS: listens there (TCP) until the script ends.
func occupy(ts *testscript.TestScript, neg bool, args []string) {
	l, err := net.Listen("tcp", args[0])
	ts.Check(err)
	ts.Defer(func() { l.Close() })
}
