. "$LIB/oci.sh"

mkdir -p r/bin r/w r/tmp && cp /bin/busybox r/bin/busybox && for a in sh pwd id; do ln -s busybox r/bin/$a; done; chmod 1777 r/tmp
pack l r && layer l
layout base '"author":"Somebody","created":"2020-01-02T03:04:05Z","os.features":["f"],"variant":"","unknown":{"k":1},"history":[{"created":"2020-01-02T03:04:05Z","created_by":"one"},{"created_by":"none","empty_layer":true}],"config":{"User":"1000:1000","Env":["PATH=/bin","A=1"],"Entrypoint":["/ep"],"Cmd":["c1","c2"],"WorkingDir":"/w","Labels":{"l":"1"},"ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":{}},"StopSignal":"SIGUSR1","Healthcheck":{"Test":["CMD","true"],"Interval":5000000000},"Shell":["/bin/sh","-ec"],"ArgsEscaped":true,"OnBuild":[],"Unknown":"x"}'
