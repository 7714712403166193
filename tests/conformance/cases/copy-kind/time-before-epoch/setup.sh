mkdir -p context
cd context
printf "before 1970" > f; touch -d '1960-01-01T00:00:00Z' f
