mkdir -p context
cd context
mkdir d; printf f > f; printf g > d/g; ln -s f l; touch -d '2001-02-03T04:05:06.123456789Z' f; touch -d '1999-12-31T23:59:59Z' d/g; touch -h -d '2002-02-02T00:00:00Z' l; touch -d '1985-01-01T00:00:00Z' d
