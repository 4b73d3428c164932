"use client";

import { type InputHTMLAttributes, type ReactNode, type SelectHTMLAttributes, type TextareaHTMLAttributes, useId } from "react";

const BOX = "w-full rounded-md border border-line bg-surface px-3 py-2 text-sm aria-[invalid=true]:border-bad";

interface Labelled {
  label: ReactNode;
  /** What it is for, below. */
  hint?: ReactNode;
  /** What is wrong with what is in it. */
  problem?: string | undefined;
}

function useLabels({ label, hint, problem }: Labelled) {
  const id = useId();
  const told = [hint !== undefined && `${id}-hint`, problem !== undefined && `${id}-problem`].filter(Boolean).join(" ");
  const around = (control: ReactNode) => (
    <div className="flex flex-col gap-1">
      <label htmlFor={id} className="text-sm font-medium">{label}</label>
      {control}
      {hint !== undefined && <p id={`${id}-hint`} className="text-xs text-soft">{hint}</p>}
      {problem !== undefined && <p id={`${id}-problem`} role="alert" className="text-xs text-bad">{problem}</p>}
    </div>
  );
  return { attributes: { id, "aria-describedby": told || undefined, "aria-invalid": problem !== undefined }, around };
}

export function Field({ label, hint, problem, className = "", ...rest }: Labelled & InputHTMLAttributes<HTMLInputElement>) {
  const { attributes, around } = useLabels({ label, hint, problem });
  return around(<input {...attributes} className={`${BOX} ${className}`} {...rest} />);
}

export function TextArea({ label, hint, problem, className = "", ...rest }: Labelled & TextareaHTMLAttributes<HTMLTextAreaElement>) {
  const { attributes, around } = useLabels({ label, hint, problem });
  return around(<textarea {...attributes} className={`${BOX} ${className}`} {...rest} />);
}

export function Select({ label, hint, problem, className = "", children, ...rest }: Labelled & SelectHTMLAttributes<HTMLSelectElement>) {
  const { attributes, around } = useLabels({ label, hint, problem });
  return around(
    <select {...attributes} className={`${BOX} ${className}`} {...rest}>
      {children}
    </select>,
  );
}

interface SliderProps extends Labelled {
  value: number;
  min: number;
  max: number;
  step: number;
  onChange: (value: number) => void;
}

/** A number between two others, by the mouse, the arrow keys, or typed. */
export function Slider({ value, min, max, step, onChange, ...labels }: SliderProps) {
  const { attributes, around } = useLabels(labels);
  const name = typeof labels.label === "string" ? labels.label : undefined;
  const change = (text: string) => {
    const number = Number(text);
    if (text !== "" && Number.isFinite(number)) onChange(Math.min(max, Math.max(min, number)));
  };
  return around(
    <div className="flex items-center gap-3">
      <input {...attributes} type="range" min={min} max={max} step={step} value={value} onChange={(event) => change(event.target.value)} className="min-w-0 flex-1 accent-brand" />
      <input type="number" aria-label={name} min={min} max={max} step={step} value={value} onChange={(event) => change(event.target.value)} className={`${BOX} !w-20`} />
    </div>,
  );
}
