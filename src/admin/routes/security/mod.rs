//! `/api/security` and `/api/audit`: principals, roles, credentials, issuers, and why somebody may or may not.

pub(in crate::admin) mod audit;
mod common;
pub(in crate::admin) mod credentials;
pub(in crate::admin) mod explain;
pub(in crate::admin) mod issuers;
pub(in crate::admin) mod own;
pub(in crate::admin) mod principals;
pub(in crate::admin) mod roles;

use actix_web::web;

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services
        .configure(own::mount)
        .configure(principals::mount)
        .configure(credentials::mount)
        .configure(roles::mount)
        .configure(issuers::mount)
        .configure(explain::mount)
        .configure(audit::mount);
}
