// What hms 0.4.4 needs to run on a node of today: names of modules that have moved, and a header that is refused now.
'use strict';

const http = require('http');
const os = require('os');

process.EventEmitter = require('events').EventEmitter;
os.tmpDir = os.tmpDir || os.tmpdir;

const end = http.ServerResponse.prototype.end;
http.ServerResponse.prototype.end = function (...rest) {
  if (this.statusCode === 204 && !this.headersSent) this.removeHeader('Trailer');
  return end.apply(this, rest);
};
