// Package service makes a node a service of this system, and talks to the service manager that runs it.
//
// Its three nouns: an [Options] is a system to install on; a [Result] is where the service is, and how it is started; a
// [Supervisor] is the service manager that started this process.
//
// It promises: [Install] can be run again after any interruption and completes what is missing; nothing outside
// /etc/fednode, /var/lib/fednode, the unit, the program's copy and the user list is written; the service's user owns the
// data and cannot change its configuration or the program; a watchdog is told of life only after the node has shown it.
package service
