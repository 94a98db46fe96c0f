//! What only the file driver can get wrong.
