package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// account returns the ids of the service's user.
func (o Options) account() (uid, gid int, err error) {
	path := o.path("etc", "passwd")
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 4 || f[0] != User {
			continue
		}
		uid, uerr := strconv.Atoi(f[2])
		gid, gerr := strconv.Atoi(f[3])
		if uerr != nil || gerr != nil {
			return 0, 0, fmt.Errorf("%s: the line of %s has no numbers", path, User)
		}
		return uid, gid, nil
	}
	return 0, 0, fmt.Errorf("%s: user %s: %w", path, User, fs.ErrNotExist)
}

// makeUser makes the system user, with whichever program the system has for that.
func (o Options) makeUser(ctx context.Context) error {
	_, _, err := o.account()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, c := range []struct {
		stdin []byte
		args  []string
	}{
		{sysusers, []string{"systemd-sysusers", "--root=" + o.path(), "-"}},
		{nil, []string{"useradd", "--prefix", o.path(), "--system", "--user-group", "--no-create-home", "--home-dir", DataDir, "--shell", "/usr/sbin/nologin", User}},
		{nil, []string{"adduser", "-S", "-D", "-H", "-h", DataDir, "-s", "/sbin/nologin", User}}, // BusyBox
	} {
		if err := o.command(ctx, c.stdin, c.args[0], c.args[1:]...); err != nil {
			errs = append(errs, err)
			continue
		}
		if _, _, err = o.account(); err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("%w; make a system user of that name and run the command again", errors.Join(errs...))
}

// Become makes this process, if it is root's, one of the user that owns directory dir: a node's files are read and
// written as their owner, whoever started it. Of root's power it keeps that to listen on ports below 1024. A service's
// passphrase is found without a service manager from then on.
func Become(dir string) error {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return nil // whoever opens it will say
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	if err := become(int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("becoming user %d, who owns %s: %w; run the command as that user", st.Uid, dir, err)
	}
	if os.Getenv("CREDENTIALS_DIRECTORY") == "" {
		return os.Setenv("CREDENTIALS_DIRECTORY", ConfigDir)
	}
	return nil
}
