UPDATE accounts SET email = lower(email);
ALTER TABLE accounts ADD CONSTRAINT lower_email CHECK (email = lower(email));
