. "$LIB/oci.sh"

layout base '"config":{"Env":["A=1"],"WorkingDir":"/w"}'
