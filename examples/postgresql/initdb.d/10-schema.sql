CREATE TABLE planet (name text PRIMARY KEY COLLATE "de_DE.utf8", moons integer NOT NULL);
INSERT INTO planet VALUES ('Merkur', 0), ('Venus', 0), ('Erde', 1), ('Mars', 2), ('Jupiter', 97);
