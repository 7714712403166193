touch -d '1999-12-31 23:59:58 UTC' context/ctx/old; touch -d '1998-01-01 UTC' context/ctx/dir
