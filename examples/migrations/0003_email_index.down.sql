-- transaction: false
DROP INDEX CONCURRENTLY accounts_email;
