//go:build linux

package main

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

const (
	projectFolder = "/work/project"
	homeFolder    = "/work/home"
	scratchFolder = "/work/tmp"
	outputFolder  = "/out"
)

func makeFolders() error {
	for _, path := range []string{projectFolder, homeFolder, scratchFolder, outputFolder} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
	}
	return nil
}

type unpacked struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// Unpacks the project's files. The host made the archive: what is not a regular file with a relative path of its own is
// a broken rule, not something to pass over. Nothing is written outside the folder, because it is opened as a root.
func unpack(from io.Reader) (unpacked, error) {
	var done unpacked
	root, err := os.OpenRoot(projectFolder)
	if err != nil {
		return done, err
	}
	defer root.Close()
	archive := tar.NewReader(from)
	for {
		entry, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil || entry.Typeflag != tar.TypeReg || !filepath.IsLocal(entry.Name) {
			return done, errJob
		}
		if folder := filepath.Dir(entry.Name); folder != "." {
			if err := root.MkdirAll(folder, 0o755); err != nil {
				return done, err
			}
		}
		mode := os.FileMode(0o644)
		if entry.Mode&0o111 != 0 {
			mode = 0o755
		}
		file, err := root.OpenFile(entry.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return done, err
		}
		written, err := io.Copy(file, archive)
		if closed := file.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return done, err
		}
		done.Files++
		done.Bytes += written
	}
	// The padding behind the end of the archive.
	_, err = io.Copy(io.Discard, from)
	return done, err
}

// What `failed` says of an error in preparing.
func preparingCode(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.ENOMEM):
		return "no_space"
	case errors.Is(err, errJob), errors.Is(err, os.ErrExist), errors.Is(err, syscall.ENOTDIR),
		errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.EINVAL), errors.Is(err, io.ErrUnexpectedEOF):
		return "bad_job"
	}
	return "internal"
}
