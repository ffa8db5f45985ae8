//! p
use crate::error::Result;
use crate::store::Store;
pub(crate) fn forget_transparent(_store: &Store) -> Result<()> {
    Ok(())
}
