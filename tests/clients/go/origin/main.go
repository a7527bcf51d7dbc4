// Go's own HTTP server. Writes a line of JSON for each request that it received whole.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	file, err := os.OpenFile(os.Args[1], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		hash := sha256.New()
		if _, err := io.Copy(hash, r.Body); err != nil {
			return
		}
		line, _ := json.Marshal([]string{r.Method, r.RequestURI, hex.EncodeToString(hash.Sum(nil))})
		_, _ = file.Write(append(line, '\n'))
		_, _ = w.Write([]byte("ok"))
	}
	log.Fatal(http.ListenAndServe(os.Getenv("MESH_APP_ADDR"), http.HandlerFunc(handler)))
}
