//go:build tools

// Package tools keeps the programs of others that the suites run, unchanged, in go.mod.
package tools

import (
	_ "github.com/spiffe/go-spiffe/v2/examples/spiffe-grpc/client"
	_ "github.com/spiffe/go-spiffe/v2/examples/spiffe-grpc/server"
	_ "github.com/spiffe/go-spiffe/v2/examples/spiffe-http/client"
	_ "github.com/spiffe/go-spiffe/v2/examples/spiffe-http/server"
	_ "github.com/spiffe/go-spiffe/v2/examples/spiffe-jwt/client"
	_ "github.com/spiffe/go-spiffe/v2/examples/spiffe-jwt/server"
	_ "github.com/spiffe/go-spiffe/v2/examples/spiffe-tls/client"
	_ "github.com/spiffe/go-spiffe/v2/examples/spiffe-tls/server"
	_ "github.com/spiffe/go-spiffe/v2/examples/spiffe-watcher"
)
