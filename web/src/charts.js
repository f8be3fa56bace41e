// Draws every figure with data-chart, whose value is JSON:
//   {x: [...], unit: "$" | "s" | "%" | "", marks: [{name, value}], continuous: bool, stacked: bool,
//    series: [{name, kind: "bar" | "line" | "points" | "step" | "area", tone, values: [...]}]}
// The same numbers are in a table of the page, to which the figure's aria-describedby points.
import * as echarts from "echarts/core";
import { BarChart, LineChart } from "echarts/charts";
import {
  AriaComponent,
  GridComponent,
  LegendComponent,
  MarkLineComponent,
  TooltipComponent,
} from "echarts/components";
import { SVGRenderer } from "echarts/renderers";

echarts.use([
  AriaComponent,
  BarChart,
  GridComponent,
  LegendComponent,
  LineChart,
  MarkLineComponent,
  SVGRenderer,
  TooltipComponent,
]);

const dark = matchMedia("(prefers-color-scheme: dark)");
const printing = matchMedia("print");
const charts = new Map();

function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function amount(value, unit) {
  if (value === null || value === undefined) return "-";
  if (unit === "$") {
    const small = Math.abs(value) < 1 && value !== 0;
    const digits = small ? 4 : 2;
    return `$${value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
  }
  if (unit === "%") return `${(100 * value).toLocaleString("en-US", { maximumFractionDigits: 1 })}%`;
  const text = value.toLocaleString("en-US", { maximumFractionDigits: 3 });
  return unit ? `${text} ${unit}` : text;
}

function tick(value, unit) {
  if (unit === "$") return `$${value.toLocaleString("en-US", { maximumFractionDigits: 4 })}`;
  if (unit === "%") return `${Math.round(100 * value)}%`;
  return unit ? `${value.toLocaleString("en-US")} ${unit}` : value.toLocaleString("en-US");
}

const HATCH = {
  cloud: { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [2, 4], rotation: -Math.PI / 4, color: "rgba(255,255,255,.35)" },
  escalated: { symbol: "circle", symbolSize: 0.6, dashArrayX: [[6, 6], [0, 6, 6, 0]], dashArrayY: [6, 0], color: "rgba(255,255,255,.4)" },
};

function seriesOf(one, spec, narrow) {
  const colour = token(one.tone);
  const base = { name: one.name, data: one.values, itemStyle: { color: colour }, animation: false };
  if (one.kind === "bar") {
    const decal = HATCH[one.tone];
    return {
      ...base,
      type: "bar",
      stack: spec.stacked === false ? undefined : "all",
      barMaxWidth: 42,
      barCategoryGap: narrow ? "18%" : "28%",
      itemStyle: { color: colour, decal },
      emphasis: { disabled: true },
    };
  }
  const area = one.kind === "area";
  return {
    ...base,
    type: "line",
    stack: area ? "all" : undefined,
    step: one.kind === "step" ? "middle" : false,
    symbol: spec.x.length === 1 || one.kind === "points" ? "circle" : "none",
    symbolSize: 7,
    lineStyle: { color: colour, width: area ? 0.5 : 2.5, type: one.dashed ? "dashed" : "solid" },
    areaStyle: area ? { color: colour, opacity: 0.85 } : undefined,
    emphasis: { disabled: true },
    z: 5,
  };
}

function marksOf(spec) {
  if (!spec.marks?.length) return undefined;
  return {
    silent: true,
    symbol: "none",
    lineStyle: { color: token("fg"), type: "dashed", width: 1.5 },
    label: { color: token("fg"), formatter: "{b}", position: "insideEndTop" },
    data: spec.marks.map(({ name, value }) => ({ name, yAxis: value })),
  };
}

function optionOf(spec, width) {
  const fg = token("fg");
  const dim = token("dim");
  const line = token("line");
  const narrow = width < 520;
  const series = spec.series.map((one) => seriesOf(one, spec, narrow));
  if (series.length) series[series.length - 1].markLine = marksOf(spec);
  return {
    animation: false,
    aria: { enabled: true, label: { enabled: false } },
    textStyle: { color: fg, fontFamily: token("font") },
    grid: { left: 4, right: 10, top: narrow ? 56 : 40, bottom: 4, containLabel: true },
    legend: {
      top: 0,
      left: 0,
      itemWidth: 18,
      itemHeight: 11,
      itemGap: narrow ? 10 : 18,
      textStyle: { color: fg, fontSize: 13 },
      selectedMode: false,
    },
    tooltip: {
      trigger: "axis",
      renderMode: "richText",
      confine: true,
      backgroundColor: token("surface"),
      borderColor: line,
      textStyle: { color: fg, fontSize: 13 },
      axisPointer: { type: "shadow", shadowStyle: { color: token("shade") } },
      valueFormatter: (value) => amount(value, spec.unit),
    },
    xAxis: {
      type: "category",
      data: spec.x,
      boundaryGap: !spec.continuous,
      axisLabel: { color: dim, hideOverlap: true, fontSize: 12 },
      axisLine: { lineStyle: { color: line } },
      axisTick: { show: false },
    },
    yAxis: {
      type: "value",
      min: 0,
      minInterval: spec.unit === "" ? 1 : undefined,
      max: spec.unit === "%" ? 1 : undefined,
      axisLabel: { color: dim, fontSize: 12, formatter: (value) => tick(value, spec.unit) },
      splitLine: { lineStyle: { color: line } },
    },
    series,
  };
}

function show(chart, element) {
  chart.setOption(optionOf(JSON.parse(element.dataset.chart), element.clientWidth), true);
}

function draw(element) {
  let chart = charts.get(element);
  if (!chart) {
    chart = echarts.init(element, null, { renderer: "svg" });
    charts.set(element, chart);
    new ResizeObserver(() => {
      chart.resize();
      show(chart, element);
    }).observe(element);
  }
  show(chart, element);
}

function drawAll() {
  for (const [element, chart] of charts) {
    if (!element.isConnected) {
      chart.dispose();
      charts.delete(element);
    }
  }
  for (const element of document.querySelectorAll("[data-chart]")) draw(element);
}

drawAll();
dark.addEventListener("change", drawAll);
printing.addEventListener("change", () => {
  for (const [element, chart] of charts) chart.resize({ width: element.clientWidth });
});
document.addEventListener("htmx:after:swap", drawAll);
document.addEventListener("htmx:sse:after:message", drawAll);
