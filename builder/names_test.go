package builder

import "testing"

func TestNames(t *testing.T) {
	tests := []struct {
		name, tag, store, registry string
		bad                        bool
	}{
		{name: "short", tag: "app", store: "localhost/app:latest", registry: "docker.io/library/app:latest"},
		{name: "short with tag", tag: "app:1", store: "localhost/app:1", registry: "docker.io/library/app:1"},
		{name: "namespace", tag: "me/app", store: "localhost/me/app:latest", registry: "docker.io/me/app:latest"},
		{name: "host by port", tag: "host:5000/app", store: "host:5000/app:latest", registry: "host:5000/app:latest"},
		{name: "host by dot", tag: "r.example/a/b:2", store: "r.example/a/b:2", registry: "r.example/a/b:2"},
		{name: "localhost", tag: "localhost/app", store: "localhost/app:latest", registry: "localhost/app:latest"},
		{name: "docker.io spelled out", tag: "docker.io/me/app", store: "docker.io/me/app:latest", registry: "docker.io/me/app:latest"},
		{name: "tag that looks like a port", tag: "app:5000", store: "localhost/app:5000", registry: "docker.io/library/app:5000"},
		{name: "upper case", tag: "App", bad: true},
		{name: "empty", tag: "", bad: true},
		{name: "digest", tag: "app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", bad: true},
		{name: "id", tag: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			store, err := storeName(test.tag)
			if test.bad {
				if err == nil {
					t.Fatalf("%q was taken for %q", test.tag, store)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			registry, err := registryName(test.tag)
			if err != nil {
				t.Fatal(err)
			}
			if store != test.store || registry != test.registry {
				t.Errorf("got %q and %q, want %q and %q", store, registry, test.store, test.registry)
			}
		})
	}
}
