m4_dnl what every page says
Welcome to SITE, in m4_len(SITE) letters.
