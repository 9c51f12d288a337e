'use strict'
// Haraka as a relay for this machine: every recipient is taken, and goes to the sink of the run.

exports.hook_lookup_rdns = function (next) {
    next(OK, 'localhost') // no DNS in the way, as Postfix has smtpd_peername_lookup=no
}

exports.hook_rcpt = function (next, connection) {
    connection.relaying = true
    next(OK)
}

exports.hook_get_mx = function (next) {
    next(OK, { priority: 0, exchange: '127.0.0.1', port: Number(this.config.get('sink_port')) })
}
