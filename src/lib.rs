//! VRRP virtual addresses of VyOS routers in AWS.
