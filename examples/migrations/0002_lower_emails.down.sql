ALTER TABLE accounts DROP CONSTRAINT lower_email;
