package catchup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"time"

	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

// Row is what Fluent Bit's tail keeps of one file (in_tail_files, plugins/in_tail/tail_sql.h).
type Row struct {
	// Name is the file's path when it was opened, or after its rotation was noticed.
	Name string `json:"name"`
	// Inode is the file's.
	Inode uint64 `json:"inode"`
	// Offset is the number of bytes that are in chunks; it ends with a line.
	Offset int64 `json:"offset"`
	// Marker is the XXH3 hash of the MarkerSize bytes in front of Offset. MarkerSize is 0 where there is none:
	// with Fluent Bit before 5.1, and at offset 0.
	Marker     uint64 `json:"marker"`
	MarkerSize int64  `json:"marker_size"`
	// Created is when the file was opened first, to the second.
	Created time.Time `json:"created"`
}

// openDB opens tail's database while no Fluent Bit uses it: for writing, for SQLite then takes over what a Fluent Bit that
// was killed left in its write-ahead log.
func openDB(path string) (*sql.DB, error) {
	return sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: "mode=rw&_pragma=busy_timeout(5000)"}).String())
}

// deleteRows removes rows of tail's database, which tail would take to be another file's.
func deleteRows(ctx context.Context, path string, rows []Row) (err error) {
	if len(rows) == 0 {
		return nil
	}
	db, err := openDB(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for _, r := range rows {
		_, err := db.ExecContext(ctx, "DELETE FROM in_tail_files WHERE inode = ? AND name = ? AND offset = ?", int64(r.Inode), r.Name, r.Offset) //nolint:gosec // SQLite has signed integers only
		if err != nil {
			return err
		}
	}
	return nil
}

// readRows reads tail's database while no Fluent Bit uses it. Where there is no database yet, there are no rows.
func readRows(ctx context.Context, path string) (rows []Row, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	db, err := openDB(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	markers := "offset_marker, offset_marker_size"
	if has, err := hasColumn(ctx, db, "offset_marker_size"); err != nil {
		return nil, err
	} else if !has {
		markers = "0, 0"
	}
	found, err := db.QueryContext(ctx, "SELECT name, COALESCE(inode, 0), COALESCE(offset, 0), COALESCE(created, 0), "+markers+" FROM in_tail_files ORDER BY id") //nolint:gosec // two literals
	if err != nil {
		return nil, err
	}
	defer func() { _ = found.Close() }() // its error is Err's
	for found.Next() {
		var r Row
		var inode, created, marker int64
		if err := found.Scan(&r.Name, &inode, &r.Offset, &created, &marker, &r.MarkerSize); err != nil {
			return nil, err
		}
		r.Inode, r.Marker, r.Created = uint64(inode), uint64(marker), time.Unix(created, 0) //nolint:gosec // SQLite has signed integers only
		rows = append(rows, r)
	}
	return rows, found.Err()
}

// hasColumn reports whether tail's table has a column. A database without the table has none.
func hasColumn(ctx context.Context, db *sql.DB, name string) (bool, error) {
	var n int
	err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM pragma_table_info('in_tail_files') WHERE name = ?", name).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("failed to read the database's schema: %w", err)
	}
	return n > 0, nil
}
