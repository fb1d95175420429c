-- transaction: false
CREATE UNIQUE INDEX CONCURRENTLY accounts_email ON accounts (email);
