. "$LIB/oci.sh"

mkdir -p r/bin && cp /bin/busybox r/bin/busybox && ln -s busybox r/bin/sh
pack l r && layer l
layout base '"history":[{"created_by":"one"}],"config":{"OnBuild":["RUN echo trigger1 >>/log","ENV T=1","COPY f /copied","RUN echo trigger$T >>/log"]}'
