package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// On Windows a job object holds all processes of a run together: none can leave it, it limits memory and their number, and
// closing it kills them all. It does not keep them out of the owner's files: tier C is for the owner's own actions.

// foldCase: PATH and Path are one variable.
const foldCase = true

type systemLauncher struct{}

func newLauncher(string) launcher { return systemLauncher{} }

// Search implements launcher.
func (systemLauncher) Search(directory string) search {
	system := os.Getenv("SystemRoot")
	return search{
		directory: directory, separators: `/\`, extensions: []string{".exe", ".com", ".bat", ".cmd"},
		standard: filepath.Join(system, "System32") + ";" + system,
	}
}

// Environment implements launcher. Without SystemRoot many programs do not even start.
func (systemLauncher) Environment(tmp string) []string {
	return []string{
		"SystemRoot=" + os.Getenv("SystemRoot"), "ComSpec=" + os.Getenv("ComSpec"), "PATHEXT=.COM;.EXE;.BAT;.CMD",
		"TEMP=" + tmp, "TMP=" + tmp, "USERPROFILE=" + tmp,
	}
}

// Start implements launcher. The process is put into its job before its first instruction, so that no child escapes it.
func (systemLauncher) Start(l *launch) (body, error) {
	all, err := newJobObject(l.spec)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: l.program, Args: l.arguments, Dir: l.directory, Env: l.env, Stdout: l.place.stdout, Stderr: l.place.stderr,
		SysProcAttr: &syscall.SysProcAttr{CreationFlags: windows.CREATE_SUSPENDED | windows.CREATE_NEW_PROCESS_GROUP},
	}
	if err := cmd.Start(); err != nil {
		windows.CloseHandle(all.handle)
		return nil, &CommandError{Program: l.program, Err: err}
	}
	all.cmd = cmd
	if err := errors.Join(all.adopt(), resume(uint32(cmd.Process.Pid))); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		windows.CloseHandle(all.handle)
		return nil, err
	}
	return all, nil
}

// jobObject is the body of a run.
type jobObject struct {
	handle windows.Handle
	cmd    *exec.Cmd
	memory uint64 // limit in bytes, 0 = none
}

// newJobObject makes a job object with the limits of spec.
func newJobObject(spec *Spec) (*jobObject, error) {
	handle, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("make job object: %w", err)
	}
	info := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{}
	info.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | windows.JOB_OBJECT_LIMIT_ACTIVE_PROCESS |
		windows.JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION
	info.BasicLimitInformation.ActiveProcessLimit = uint32(spec.Limits.Pids)
	if spec.Limits.Memory > 0 {
		info.BasicLimitInformation.LimitFlags |= windows.JOB_OBJECT_LIMIT_JOB_MEMORY
		info.JobMemoryLimit = uintptr(spec.Limits.Memory)
	}
	_, err = windows.SetInformationJobObject(handle, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	if err != nil {
		windows.CloseHandle(handle)
		return nil, fmt.Errorf("limit job object: %w", err)
	}
	return &jobObject{handle: handle, memory: uint64(spec.Limits.Memory)}, nil
}

// adopt puts the main process into the job object.
func (j *jobObject) adopt() error {
	process, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(j.cmd.Process.Pid))
	if err != nil {
		return fmt.Errorf("open process of run: %w", err)
	}
	defer windows.CloseHandle(process)
	if err := windows.AssignProcessToJobObject(j.handle, process); err != nil {
		return fmt.Errorf("put process into job object: %w", err)
	}
	return nil
}

// resume lets a process that was made suspended run: its only thread is found in the system's list.
func resume(pid uint32) error {
	list, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPTHREAD, 0)
	if err != nil {
		return fmt.Errorf("list threads: %w", err)
	}
	defer windows.CloseHandle(list)
	entry := windows.ThreadEntry32{Size: uint32(unsafe.Sizeof(windows.ThreadEntry32{}))}
	for err = windows.Thread32First(list, &entry); err == nil; err = windows.Thread32Next(list, &entry) {
		if entry.OwnerProcessID != pid {
			continue
		}
		thread, err := windows.OpenThread(windows.THREAD_SUSPEND_RESUME, false, entry.ThreadID)
		if err != nil {
			return fmt.Errorf("open thread of run: %w", err)
		}
		defer windows.CloseHandle(thread)
		if _, err := windows.ResumeThread(thread); err != nil {
			return fmt.Errorf("resume run: %w", err)
		}
		return nil
	}
	return fmt.Errorf("find thread of process %d: %w", pid, err)
}

// Wait implements body.
func (j *jobObject) Wait() error {
	err := j.cmd.Wait()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return nil
	}
	return err
}

// Kill implements body.
func (j *jobObject) Kill() { _ = windows.TerminateJobObject(j.handle, 1) }

// accounting is JOBOBJECT_BASIC_ACCOUNTING_INFORMATION of winnt.h; times are in units of 100 ns.
type accounting struct {
	UserTime, KernelTime, PeriodUserTime, PeriodKernelTime                int64
	PageFaults, TotalProcesses, ActiveProcesses, TotalTerminatedProcesses uint32
}

// classAccounting is JobObjectBasicAccountingInformation.
const classAccounting = 1

// End implements body.
func (j *jobObject) End() (ending, error) {
	defer windows.CloseHandle(j.handle)
	var used accounting
	for range endTries {
		j.Kill()
		err := windows.QueryInformationJobObject(j.handle, classAccounting, uintptr(unsafe.Pointer(&used)), uint32(unsafe.Sizeof(used)), nil)
		if err != nil {
			return ending{}, fmt.Errorf("ask job object: %w", err)
		}
		if used.ActiveProcesses == 0 {
			return j.ending(used), nil
		}
		time.Sleep(endPause)
	}
	return ending{}, errors.New("end job object: something is still left")
}

func (j *jobObject) ending(used accounting) ending {
	end := ending{exitCode: j.cmd.ProcessState.ExitCode(), usage: Usage{
		User: time.Duration(used.UserTime) * 100, System: time.Duration(used.KernelTime) * 100, MinorFaults: int64(used.PageFaults),
	}}
	var info windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	err := windows.QueryInformationJobObject(j.handle, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)), nil)
	if err == nil {
		end.usage.MaxRSS = int64(info.PeakJobMemoryUsed)
		end.memory = j.memory > 0 && uint64(info.PeakJobMemoryUsed) >= j.memory
	}
	return end
}

// systemProbe is an action that copies its input. A job object cannot keep it from writing elsewhere.
func systemProbe(string) []string { return []string{"cmd.exe", "/c", "copy /b file made >nul"} }
