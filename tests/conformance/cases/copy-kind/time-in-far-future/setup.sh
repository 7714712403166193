mkdir -p context
cd context
printf "after 2100" > f; touch -d '2200-01-01T00:00:00Z' f
