//go:build linux

package main

import (
	"archive/tar"
	"io"
	"os"
	"sort"
	"strings"
	"syscall"
	"unicode/utf8"
)

const (
	maxDepth = 32
	maxPath  = 1024
	// Names kept in memory at once are of one folder for each level; beyond so many in all, entries are only counted.
	maxEntries = 16_384
)

type leftOut struct {
	Links     int `json:"links"`
	Special   int `json:"special"`
	Names     int `json:"names"`
	OverLimit int `json:"over_limit"`
}

type packed struct {
	Files   int     `json:"files"`
	Bytes   int64   `json:"bytes"`
	LeftOut leftOut `json:"left_out"`
}

type packer struct {
	to      *tar.Writer
	limits  limits
	done    packed
	entries int
	linked  map[[2]uint64]bool
}

// Packs the regular files below the folder in the order of their names. Called when no process is left, so nothing
// changes while it walks; links are not followed all the same. What is not packed is counted:
// `links` symbolic links, and further names of a file that has several; `special` what is neither file nor folder, or
// cannot be read; `names` what is no UTF-8, too long or too deep; `over_limit` what the limits leave no room for.
func pack(folder string, to io.Writer, allowed limits) (packed, error) {
	p := &packer{to: tar.NewWriter(to), limits: allowed, linked: map[[2]uint64]bool{}}
	root, err := os.Open(folder)
	if err == nil {
		err = p.walk(root, "", 0)
	}
	if err != nil {
		return p.done, err
	}
	return p.done, p.to.Close()
}

// Takes the open folder and closes it.
func (p *packer) walk(folder *os.File, prefix string, depth int) error {
	defer folder.Close()
	names := p.list(folder)
	for _, name := range names {
		if err := p.entry(folder, prefix, name, depth); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) list(folder *os.File) []string {
	var names []string
	for {
		batch, err := folder.Readdirnames(256)
		for _, name := range batch {
			if p.entries == maxEntries {
				p.done.LeftOut.OverLimit++
				continue
			}
			p.entries++
			names = append(names, name)
		}
		if err != nil || len(batch) == 0 {
			break
		}
	}
	sort.Strings(names)
	return names
}

// Opened by its name in an open folder and looked at only then, so that what was checked is what is read. O_NONBLOCK:
// a named pipe would wait for its other end.
func (p *packer) entry(folder *os.File, prefix, name string, depth int) error {
	path := prefix + name
	const flags = syscall.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK | syscall.O_NOCTTY | syscall.O_CLOEXEC
	fd, err := syscall.Openat(int(folder.Fd()), name, flags, 0)
	if err == syscall.ELOOP {
		p.done.LeftOut.Links++
		return nil
	}
	if err != nil {
		p.done.LeftOut.Special++
		return nil
	}
	file := os.NewFile(uintptr(fd), name)
	var stat syscall.Stat_t
	if syscall.Fstat(fd, &stat) != nil {
		file.Close()
		p.done.LeftOut.Special++
		return nil
	}
	kind := stat.Mode & syscall.S_IFMT
	switch {
	case kind != syscall.S_IFREG && kind != syscall.S_IFDIR:
		p.done.LeftOut.Special++
	case !utf8.ValidString(name) || strings.ContainsRune(name, '\\') || len(path) > maxPath || depth >= maxDepth:
		p.done.LeftOut.Names++
	case kind == syscall.S_IFDIR:
		return p.walk(file, path+"/", depth+1)
	default:
		err = p.file(file, path, &stat)
	}
	file.Close()
	return err
}

func (p *packer) file(file *os.File, path string, stat *syscall.Stat_t) error {
	if stat.Nlink > 1 {
		identity := [2]uint64{uint64(stat.Dev), stat.Ino}
		if p.linked[identity] {
			p.done.LeftOut.Links++
			return nil
		}
		p.linked[identity] = true
	}
	if int64(p.done.Files) >= p.limits.artifactFiles || stat.Size > p.limits.artifactBytes-p.done.Bytes {
		p.done.LeftOut.OverLimit++
		return nil
	}
	mode := int64(0o644)
	if stat.Mode&0o100 != 0 {
		mode = 0o755
	}
	head := &tar.Header{Typeflag: tar.TypeReg, Name: path, Size: stat.Size, Mode: mode, Format: tar.FormatPAX}
	if err := p.to.WriteHeader(head); err != nil {
		return err
	}
	if _, err := io.CopyN(p.to, file, stat.Size); err != nil {
		return err
	}
	p.done.Files++
	p.done.Bytes += stat.Size
	return nil
}
